package flow

import (
	"fmt"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Stamp is what the journal knows of a stamp that is registered.
type Stamp struct {
	CloudID        string    `json:"cloudId"`
	Agent          string    `json:"agent,omitempty"` // "" for a plain token
	RegistrationID string    `json:"registrationId"`
	BillingModel   string    `json:"billingModel,omitempty"`
	KeyExpires     string    `json:"keyExpires,omitempty"` // as the last key spells it
	Expires        time.Time `json:"-"`                    // zero when that is no time
	Trip           string    `json:"trip"`
	NeedsKey       bool      `json:"needsKey,omitempty"` // it was moved since its last key
}

// Stamps lists the stamps that this relay registered and that it did not remove,
// in the order in which they came first.
func Stamps(l interface{ Trips() []ledger.Trip }) []Stamp {
	var order []string
	known := map[string]*Stamp{}
	for _, t := range l.Trips() {
		d := t.Data
		id := strings.ToLower(d[dataCloudID])
		if id == "" {
			id = strings.ToLower(d[dataRegistrationID]) // an opaque token tells no cloud id
		}
		s := known[id]
		switch op := d[dataOperation]; {
		case op == operationMove:
			if s != nil && d[dataMoved] == "true" {
				s.RegistrationID, s.NeedsKey = d[dataMoveTo], true
			}
		case t.State == ledger.Removed || (op == bundle.Unregister && isRegistered(t.State)):
			delete(known, id)
		case isRegistered(t.State):
			if s == nil {
				order = append(order, id)
			}
			known[id] = &Stamp{CloudID: d[dataCloudID], Agent: d[dataAgent], RegistrationID: d[dataRegistrationID], BillingModel: d[dataBilling],
				KeyExpires: d[dataKeyExpires], Expires: expiry(d[dataKeyExpires]), Trip: t.ID}
		}
	}
	var all []Stamp
	for _, id := range order {
		if s := known[id]; s != nil {
			all = append(all, *s)
			delete(known, id) // a stamp that came again stands where it came first
		}
	}
	return all
}

// expiry reads the two spellings of a key's expiry; one without a zone is UTC.
func expiry(text string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// DaysLeft is how many whole days the key is still good for, below zero when it
// is not; ok is false when its expiry is not known.
func (s Stamp) DaysLeft(now time.Time) (days int, ok bool) {
	if s.Expires.IsZero() {
		return 0, false
	}
	left := s.Expires.Sub(now)
	days = int(left / (24 * time.Hour))
	if left < 0 {
		days--
	}
	return days, true
}

// Warning is the sentence that status prints for a stamp that wants something, or
// "". A key is warned of from 60, 30 and 7 days before its end on.
func (s Stamp) Warning(now time.Time) string {
	if s.NeedsKey {
		return fmt.Sprintf("stamp %q was moved to %s and still holds the key of the old place: azs-agent token … --expect-group GROUP, or azs-relay key", s.CloudID, s.RegistrationID)
	}
	days, ok := s.DaysLeft(now)
	if !ok || days > 60 {
		return ""
	}
	end := clock.Format(s.Expires)
	switch {
	case days < 0:
		return fmt.Sprintf("the activation key of stamp %q ended on %s: azs-agent renew --pep …", s.CloudID, end)
	case days <= 7:
		return fmt.Sprintf("the activation key of stamp %q ends on %s, in %d days: renew it NOW by azs-agent renew --pep …", s.CloudID, end, days)
	case days <= 30:
		return fmt.Sprintf("the activation key of stamp %q ends on %s, in %d days: renew it by azs-agent renew --pep …", s.CloudID, end, days)
	}
	return fmt.Sprintf("the activation key of stamp %q ends on %s, in %d days: plan its renewal", s.CloudID, end, days)
}
