package wsman

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// The codes of faults that have a meaning here ([MS-WSMV] 2.2.4.46, winerror.h).
const (
	CodeTimedOut           = 2150858793 // no data within the operation timeout: receive again
	CodeInvalidSelectors   = 2150858843 // the shell or command is gone
	CodeMaxShells          = 2150859173 // shells of this user
	CodeMaxOperations      = 2150859174 // operations of this user
	CodeAccessDenied       = 5
	CodeAborted            = 995
	CodeNoConfiguration    = 2150858811 // resource URI: the session configuration is missing,
	CodeNoConfigurationToo = 2150858754 // which of the two is not known
	CodeCannotComplete     = 2150859046

	subcodeTimedOut         = "TimedOut"
	subcodeInvalidSelectors = "InvalidSelectors"
)

// Fault is a SOAP fault: the endpoint refuses an operation. It is judged by its
// body, as the HTTP status of a fault may be 200.
type Fault struct {
	Code    uint64 // of the WSManFault, else 0
	Sender  bool   // the request is at fault, not the endpoint
	Subcode string // such as w:TimedOut, without its prefix
	Reason  string
	Message string // of the WSManFault
}

// Error shows code and text.
func (f *Fault) Error() string {
	text := f.Message
	if text == "" {
		text = f.Reason
	}
	return fmt.Sprintf("the endpoint refuses (%q, %d): %q", f.Subcode, f.Code, text)
}

// Definite reports that the operation certainly was not begun: the endpoint says
// that the request is at fault, or that there is no room for it. Any other fault
// may have come in the middle of the work.
func (f *Fault) Definite() bool {
	switch f.Code {
	case CodeTimedOut, CodeAborted, CodeCannotComplete:
		return false
	case CodeInvalidSelectors, CodeMaxShells, CodeMaxOperations, CodeAccessDenied, CodeNoConfiguration, CodeNoConfigurationToo:
		return true
	}
	return f.Sender
}

// TimedOut reports that there was only nothing to receive yet.
func (f *Fault) TimedOut() bool { return f.Code == CodeTimedOut || f.Subcode == subcodeTimedOut }

// Gone reports that the shell or command does not exist any more.
func (f *Fault) Gone() bool {
	return f.Code == CodeInvalidSelectors || f.Subcode == subcodeInvalidSelectors
}

// wrap gives a fault the kind and the hint that the operator needs.
func (f *Fault) wrap() error {
	switch f.Code {
	case CodeMaxShells, CodeMaxOperations:
		return fault.New(fault.Unreachable, "the endpoint has no room for another session of this user: %w", f).Hint("end other sessions of the user, or wait up to an hour, and run the same command again")
	case CodeAccessDenied:
		return fault.New(fault.Permanent, "the endpoint does not let this user in: %w", f).Hint(`check --pep-user 'DOMAIN\CloudAdmin'`)
	case CodeNoConfiguration, CodeNoConfigurationToo:
		return fault.New(fault.Permanent, "there is no session configuration PrivilegedEndpoint: the address is not that of a privileged endpoint: %w", f).Hint("azs-agent info --pep A,B,C   (the addresses of the ERCS machines)")
	}
	return f
}

// IsGone reports whether err is a fault that says that the shell is gone.
func IsGone(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.Gone()
}

type wireFault struct {
	Code struct {
		Value   string `xml:"http://www.w3.org/2003/05/soap-envelope Value"`
		Subcode struct {
			Value string `xml:"http://www.w3.org/2003/05/soap-envelope Value"`
		} `xml:"http://www.w3.org/2003/05/soap-envelope Subcode"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Code"`
	Reason string `xml:"http://www.w3.org/2003/05/soap-envelope Reason>Text"`
	Detail struct {
		WSMan *wsmanFault `xml:"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault WSManFault"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Detail"`
}

// wsmanFault is [MS-WSMV] 2.2.4.46; the plug-in's own fault stands within its
// message and has the text that helps.
type wsmanFault struct {
	Code    string `xml:"Code,attr"`
	Message struct {
		Text     string `xml:",chardata"`
		Provider *struct {
			Text  string      `xml:",chardata"`
			Inner *wsmanFault `xml:"WSManFault"`
		} `xml:"ProviderFault"`
	} `xml:"Message"`
}

func (w *wsmanFault) text() string {
	text := w.Message.Text
	if p := w.Message.Provider; p != nil {
		text += p.Text
		if p.Inner != nil {
			text += p.Inner.text()
		}
	}
	return text
}

func (w *wireFault) read() *Fault {
	f := &Fault{Sender: local(w.Code.Value) == "Sender", Subcode: local(w.Code.Subcode.Value), Reason: limit(w.Reason)}
	if w.Detail.WSMan != nil {
		f.Code, _ = strconv.ParseUint(w.Detail.WSMan.Code, 10, 64)
		f.Message = limit(w.Detail.WSMan.text())
	}
	return f
}

// local is the name without its prefix.
func local(name string) string {
	name = strings.TrimSpace(name)
	if _, after, ok := strings.Cut(name, ":"); ok {
		name = after
	}
	return limit(name)
}

// limit keeps foreign text short enough for an error.
func limit(s string) string {
	s = strings.TrimSpace(s)
	return s[:min(len(s), 2000)]
}
