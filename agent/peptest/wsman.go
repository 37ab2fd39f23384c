package peptest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
)

// Namespaces and names of WSMan shells ([MS-WSMV]).
const (
	nsTransfer = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
	nsShell    = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	resource   = "http://schemas.microsoft.com/powershell/PrivilegedEndpoint"
	anonymous  = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
	stateDone  = nsShell + "/CommandState/Done"
)

// Codes of WSMan faults. Of codeOptions and codeUnderstand the numbers are guesses:
// the subcode tells them.
const (
	codeOptions      = 2150858881
	codeUnderstand   = 2150858882
	codeAccessDenied = 5
	codeAborted      = 995
	codeTimedOut     = 2150858793
	codeResource     = 2150858811
	codeSchema       = 2150858817
	codeSelectors    = 2150858843
	codeCannot       = 2150859046
	codeMaxShells    = 2150859173
	codeMaxCommands  = 2150859174
)

var faults = map[uint32]struct{ side, subcode, text string }{
	codeAccessDenied: {"Sender", "w:AccessDenied", "Access is denied. "},
	codeAborted:      {"Receiver", "w:InternalError", "The I/O operation has been aborted because of either a thread exit or an application request. "},
	codeTimedOut:     {"Receiver", "w:TimedOut", "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.  "},
	codeResource:     {"Sender", "a:DestinationUnreachable", "The WS-Management service cannot process the request. The resource URI does not name a session configuration of this computer. "},
	codeSchema:       {"Sender", "w:SchemaValidationError", "The SOAP XML in the message does not match the corresponding XML schema definition. Change the XML and retry. "},
	codeOptions:      {"Sender", "w:InvalidOptions", "The WS-Management service cannot process the request. One or more options are not valid. "},
	codeUnderstand:   {"MustUnderstand", "w:UnsupportedFeature", "The WS-Management service does not understand a header that must be understood. "},
	codeSelectors:    {"Sender", "w:InvalidSelectors", "The request for the Windows Remote Shell failed because the shell or the command was not found on the server. Provide the correct ShellId or create a new shell and retry the operation. "},
	codeCannot:       {"Receiver", "w:InternalError", "The WinRM client cannot complete the operation. "},
	codeMaxShells:    {"Receiver", "w:QuotaLimit", "The WS-Management service cannot process the request. The maximum number of concurrent shells for this user has been exceeded. Close existing shells or raise the quota for this user. "},
	codeMaxCommands:  {"Receiver", "w:QuotaLimit", "The WS-Management service cannot process the request. The maximum number of concurrent operations for this user has been exceeded. Close existing operations for this user, or raise the quota for this user. "},
}

// envelope is a WSMan request.
type envelope struct {
	XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	Header  struct {
		Action           string  `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing Action"`
		To               string  `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing To"`
		MessageID        string  `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing MessageID"`
		ResourceURI      string  `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd ResourceURI"`
		MaxEnvelopeSize  string  `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd MaxEnvelopeSize"`
		OperationTimeout string  `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd OperationTimeout"`
		SessionID        string  `xml:"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd SessionId"`
		ReplyTo          string  `xml:"ReplyTo>Address"`
		Selectors        []named `xml:"SelectorSet>Selector"`
		Options          []named `xml:"OptionSet>Option"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body struct {
		Shell *struct {
			ShellID       string `xml:"ShellId,attr"`
			InputStreams  string
			OutputStreams string
			IdleTimeOut   string
			CreationXML   string `xml:"creationXml"`
		}
		Receive *struct {
			DesiredStream struct {
				CommandID string `xml:"CommandId,attr"`
				Names     string `xml:",chardata"`
			}
		}
		CommandLine *struct {
			CommandID string `xml:"CommandId,attr"`
			Arguments []string
		}
		Send *struct {
			Stream []struct {
				Name      string `xml:",attr"`
				CommandID string `xml:"CommandId,attr"`
				Data      string `xml:",chardata"`
			}
		}
		Signal *struct {
			CommandID string `xml:"CommandId,attr"`
			Code      string
		}
		Connect *struct {
			CommandID  string `xml:"CommandId,attr"`
			ConnectXML string `xml:"connectXml"`
		}
	} `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

type named struct {
	Name       string `xml:",attr"`
	MustComply string `xml:",attr"`
	Value      string `xml:",chardata"`
}

// maxEnvelope is the size of the largest reply that the client takes; 0 where the
// request does not say one.
func (e *envelope) maxEnvelope() int {
	n, _ := strconv.Atoi(strings.TrimSpace(e.Header.MaxEnvelopeSize)) // checked by parseEnvelope
	return n
}

func parseEnvelope(body []byte) (*envelope, error) {
	e := &envelope{}
	if err := xml.Unmarshal(body, e); err != nil {
		return e, fmt.Errorf("envelope: %w", err)
	}
	h := &e.Header
	for _, required := range []struct{ name, value string }{{"Action", h.Action}, {"To", h.To}, {"MessageID", h.MessageID},
		{"ReplyTo", h.ReplyTo}, {"ResourceURI", h.ResourceURI}, {"MaxEnvelopeSize", h.MaxEnvelopeSize},
		{"OperationTimeout", h.OperationTimeout}, {"SessionId", h.SessionID}} {
		if strings.TrimSpace(required.value) == "" {
			return e, &headerError{codeSchema, fmt.Sprintf("the envelope has no %s", required.name)}
		}
	}
	for name, value := range map[string]string{"MessageID": h.MessageID, "SessionId": h.SessionID} {
		if _, err := psrp.ParseGUID(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(value)), "uuid:")); err != nil {
			return e, &headerError{codeSchema, fmt.Sprintf("%s %q is no uuid", name, value)}
		}
	}
	if strings.TrimSpace(h.ReplyTo) != anonymous {
		return e, &headerError{codeSchema, fmt.Sprintf("ReplyTo %q is not the anonymous address", h.ReplyTo)}
	}
	if n, err := strconv.Atoi(strings.TrimSpace(h.MaxEnvelopeSize)); err != nil || n < minEnvelope {
		return e, &headerError{codeSchema, fmt.Sprintf("MaxEnvelopeSize %q is not a number of at least %d", h.MaxEnvelopeSize, minEnvelope)}
	}
	if !duration.MatchString(strings.TrimSpace(h.OperationTimeout)) {
		return e, &headerError{codeSchema, fmt.Sprintf("OperationTimeout %q is no duration", h.OperationTimeout)}
	}
	for _, o := range h.Options {
		known := slices.ContainsFunc(options, func(name string) bool { return strings.EqualFold(name, o.Name) })
		if !known && isTrue(o.MustComply) {
			return e, &headerError{codeOptions, fmt.Sprintf("option %q is not known and must be complied with", o.Name)}
		}
	}
	return e, understood(body)
}

// minEnvelope is the smallest MaxEnvelopeSize that WS-Management allows.
const minEnvelope = 8192

// options that a shell of PowerShell knows.
var options = []string{"protocolversion", "WINRS_NOPROFILE", "WINRS_CODEPAGE", "WINRS_SKIP_CMD_SHELL", "WINRS_CONSOLEMODE_STDIN", "WSMAN_CMDSHELL_OPTION_KEEPALIVE"}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// headerError is a fault about a header block.
type headerError struct {
	code uint32
	text string
}

func (e *headerError) Error() string { return e.text }

// understood looks at the attributes mustUnderstand of the header: they are those
// of SOAP by their name space, stand true where WS-Management wants it, and on
// nothing that is not known.
func understood(body []byte) error {
	known := []string{"Action", "To", "MessageID", "ReplyTo", "Address", "ResourceURI", "MaxEnvelopeSize", "OperationTimeout", "Locale",
		"DataLocale", "SessionId", "SelectorSet", "Selector", "OptionSet", "Option", "ActivityId", "OperationID", "SequenceId", "FragmentTransfer"}
	want := map[string]bool{"Action": true, "ResourceURI": true, "MaxEnvelopeSize": true}
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		t, err := d.Token()
		if err != nil {
			return nil // it was read once already
		}
		switch t := t.(type) {
		case xml.EndElement:
			if t.Name.Local == "Header" {
				for name := range want {
					return &headerError{codeSchema, name + " lacks s:mustUnderstand"}
				}
				return nil
			}
		case xml.StartElement:
			for _, a := range t.Attr {
				switch {
				case a.Name.Local != "mustUnderstand":
				case a.Name.Space != "http://www.w3.org/2003/05/soap-envelope":
					return &headerError{codeSchema, "mustUnderstand of " + t.Name.Local + " has not the name space of SOAP"}
				case isTrue(a.Value) && !slices.Contains(known, t.Name.Local):
					return &headerError{codeUnderstand, "the header " + t.Name.Local + " must be understood and is not"}
				case isTrue(a.Value):
					delete(want, t.Name.Local)
				}
			}
		}
	}
}

// operation returns the last part of the action, such as Receive.
func (e *envelope) operation() string {
	return e.Header.Action[strings.LastIndexByte(e.Header.Action, '/')+1:]
}

func (e *envelope) shellID() string {
	for _, s := range e.Header.Selectors {
		if s.Name == "ShellId" {
			return strings.ToUpper(strings.TrimSpace(s.Value))
		}
	}
	if e.Body.Shell != nil {
		return strings.ToUpper(e.Body.Shell.ShellID)
	}
	return ""
}

func (e *envelope) commandID() string {
	id := ""
	switch b := &e.Body; {
	case b.Receive != nil:
		id = b.Receive.DesiredStream.CommandID
	case b.CommandLine != nil:
		id = b.CommandLine.CommandID
	case b.Signal != nil:
		id = b.Signal.CommandID
	case b.Connect != nil:
		id = b.Connect.CommandID
	case b.Send != nil && len(b.Send.Stream) > 0:
		id = b.Send.Stream[0].CommandID
	}
	return strings.ToUpper(id)
}

func (e *envelope) option(name string) named {
	for _, o := range e.Header.Options {
		if strings.EqualFold(o.Name, name) {
			o.Value = strings.TrimSpace(o.Value)
			return o
		}
	}
	return named{}
}

var duration = regexp.MustCompile(`^PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?$`)

// parseDuration reads the XML durations that WSMan clients write.
func parseDuration(s string, otherwise time.Duration) time.Duration {
	m := duration.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return otherwise
	}
	number := func(i int) float64 { f, _ := strconv.ParseFloat("0"+m[i], 64); return f }
	return time.Duration((number(1)*3600 + number(2)*60 + number(3)) * float64(time.Second))
}

// answer is the content of a reply. Status 0 means that none is to be sent.
type answer struct {
	status int
	action string
	body   string // XML
	code   uint32 // of a fault
}

func ok(action, body string) answer {
	return answer{status: http.StatusOK, action: action, body: body}
}

// faultAnswer returns a fault; an empty text stands for the code's own.
func faultAnswer(code uint32, text string) answer {
	f, known := faults[code]
	if !known {
		f.side, f.subcode, f.text = "Receiver", "w:InternalError", "The WS-Management service cannot process the request. "
	}
	if text == "" {
		text = f.text
	}
	text = escape(text)
	return answer{http.StatusInternalServerError, "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", fmt.Sprintf(
		`<s:Fault><s:Code><s:Value>s:%s</s:Value><s:Subcode><s:Value>%s</s:Value></s:Subcode></s:Code>`+
			`<s:Reason><s:Text xml:lang="en-US">%s</s:Text></s:Reason><s:Detail>`+
			`<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="%d" Machine="127.0.0.1"><f:Message>%s</f:Message></f:WSManFault>`+
			`</s:Detail></s:Fault>`, f.side, f.subcode, text, code, text), code}
}

// envelope writes the reply as Windows does.
func (a answer) envelope(relatesTo string) []byte {
	return fmt.Appendf(nil, `<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope"`+
		` xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer"`+
		` xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:rsp="%s"`+
		` xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header><a:Action>%s</a:Action>`+
		`<a:MessageID>uuid:%s</a:MessageID><p:ActivityId>%s</p:ActivityId><a:To>%s</a:To><a:RelatesTo>%s</a:RelatesTo>`+
		`</s:Header><s:Body>%s</s:Body></s:Envelope>`,
		nsShell, a.action, newGUID(), newGUID(), anonymous, escape(relatesTo), a.body)
}

// envelopeOverhead is more than what envelope puts around the streams.
const envelopeOverhead = 2048

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer does not fail
	return b.String()
}
