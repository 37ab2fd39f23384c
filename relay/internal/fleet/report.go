package fleet

import (
	_ "embed"
	"html/template"
	"io"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
)

// The outcomes of a stamp.
const (
	Answered = "answered" // the answer was sealed in this run
	Again    = "again"    // an earlier run had answered; the same answer
	Closed   = "closed"   // a receipt ended the trip
	Failed   = "failed"
	Skipped  = "skipped" // not begun before the run was stopped
)

// Line is what became of one bundle.
type Line struct {
	File         string   `json:"file"` // as it lies on the stick
	Trip         string   `json:"trip,omitempty"`
	Agent        string   `json:"agent,omitempty"`
	CloudID      string   `json:"cloudId,omitempty"`
	Operation    string   `json:"operation,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
	Registration string   `json:"registrationId,omitempty"`
	KeyExpires   string   `json:"keyExpires,omitempty"`
	Answer       string   `json:"answer,omitempty"` // the answer's name on the stick
	Outcome      string   `json:"outcome"`
	Exit         int      `json:"exit"` // what the verb for this bundle alone would end with
	Error        string   `json:"error,omitempty"`
	Hint         string   `json:"hint,omitempty"`
	Warnings     []string `json:"warnings,omitempty"`
}

// Report is what became of a run. Both times are of this machine's clock.
type Report struct {
	Folder  string         `json:"folder"`
	Fleet   string         `json:"fleet"`
	Relay   string         `json:"relay"`   // label of the relay
	Signer  string         `json:"signer"`  // fingerprint of its key
	Journal string         `json:"journal"` // head of its journal at the end
	Begun   time.Time      `json:"begun"`
	Ended   time.Time      `json:"ended"`
	Calls   map[string]int `json:"calls"` // to Resource Manager: "reads", "writes", "deletes"; those repeated count each time
	Lines   []Line         `json:"bundles"`
}

// Count returns how many bundles had one of the outcomes.
func (r *Report) Count(outcomes ...string) int {
	n := 0
	for _, l := range r.Lines {
		for _, o := range outcomes {
			if l.Outcome == o {
				n++
			}
		}
	}
	return n
}

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"time": clock.Format}).Parse(page))

// HTML writes the report as one page that needs nothing else and prints on A4.
func (r *Report) HTML(w io.Writer) error {
	return pageTemplate.Execute(w, struct {
		*Report
		Good, Bad, Left int
		Took            time.Duration
	}{r, r.Count(Answered, Again, Closed), r.Count(Failed), r.Count(Skipped), r.Ended.Sub(r.Begun).Round(time.Second)})
}
