package wsman

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Actions and names of WS-Management and of its shells ([MS-WSMV] 3.1.4).
const (
	nsSOAP       = "http://www.w3.org/2003/05/soap-envelope"
	nsAddressing = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
	nsWSMan      = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
	nsMicrosoft  = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"
	nsShell      = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	nsPowerShell = "http://schemas.microsoft.com/powershell"

	actionCreate    = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create"
	actionDelete    = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete"
	actionCommand   = nsShell + "/Command"
	actionReceive   = nsShell + "/Receive"
	actionSend      = nsShell + "/Send"
	actionSignal    = nsShell + "/Signal"
	actionReconnect = nsShell + "/Reconnect"

	anonymous = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
)

// ResourceURI is the session configuration of the privileged endpoint.
const ResourceURI = "http://schemas.microsoft.com/powershell/PrivilegedEndpoint"

// option is a w:Option of an OptionSet.
type option struct {
	name, value string
	mustComply  bool
}

// request is what an envelope says.
type request struct {
	action    string
	messageID string // "uuid:…"
	shellID   string // "" for Create
	options   []option
	body      string // XML, made of escaped parts
}

// envelope is the header's part that is the same for a whole session.
type envelope struct {
	to          string
	sessionID   string // "uuid:…"
	maxEnvelope int
	timeout     string // xs:duration
}

// escape makes text fit for an XML text node or attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

// marshal spells the envelope of a request, with mustUnderstand under its prefix.
func (e envelope) marshal(r request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<s:Envelope xmlns:s="%s" xmlns:a="%s" xmlns:w="%s" xmlns:p="%s" xmlns:rsp="%s"><s:Header>`, nsSOAP, nsAddressing, nsWSMan, nsMicrosoft, nsShell)
	fmt.Fprintf(&b, `<a:Action s:mustUnderstand="true">%s</a:Action>`, escape(r.action))
	fmt.Fprintf(&b, `<a:To>%s</a:To>`, escape(e.to))
	fmt.Fprintf(&b, `<a:ReplyTo><a:Address s:mustUnderstand="true">%s</a:Address></a:ReplyTo>`, anonymous)
	fmt.Fprintf(&b, `<a:MessageID>%s</a:MessageID>`, escape(r.messageID))
	fmt.Fprintf(&b, `<w:ResourceURI s:mustUnderstand="true">%s</w:ResourceURI>`, ResourceURI)
	fmt.Fprintf(&b, `<w:MaxEnvelopeSize s:mustUnderstand="true">%d</w:MaxEnvelopeSize>`, e.maxEnvelope)
	fmt.Fprintf(&b, `<w:OperationTimeout>%s</w:OperationTimeout>`, e.timeout)
	b.WriteString(`<w:Locale s:mustUnderstand="false" xml:lang="en-US"/><p:DataLocale s:mustUnderstand="false" xml:lang="en-US"/>`)
	fmt.Fprintf(&b, `<p:SessionId s:mustUnderstand="false">%s</p:SessionId>`, escape(e.sessionID))
	if r.shellID != "" {
		fmt.Fprintf(&b, `<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>`, escape(r.shellID))
	}
	if len(r.options) > 0 {
		b.WriteString(`<w:OptionSet s:mustUnderstand="true">`)
		for _, o := range r.options {
			comply := ""
			if o.mustComply {
				comply = ` MustComply="true"`
			}
			fmt.Fprintf(&b, `<w:Option Name="%s"%s>%s</w:Option>`, escape(o.name), comply, escape(o.value))
		}
		b.WriteString(`</w:OptionSet>`)
	}
	fmt.Fprintf(&b, `</s:Header><s:Body>%s</s:Body></s:Envelope>`, r.body)
	return b.Bytes()
}

// reply is what is read of a reply's envelope.
type reply struct {
	XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	Header  struct {
		// The name space of a path a>b would be asked of both, so no path here.
		RelatesTo string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing RelatesTo"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body body `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

type body struct {
	Fault           *wireFault       `xml:"http://www.w3.org/2003/05/soap-envelope Fault"`
	Created         *selectors       `xml:"http://schemas.xmlsoap.org/ws/2004/09/transfer ResourceCreated"`
	Shell           *wireShell       `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Shell"`
	CommandResponse *commandResponse `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandResponse"`
	Received        *received        `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell ReceiveResponse"`
	Sent            *struct{}        `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell SendResponse"`
	Signalled       *struct{}        `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell SignalResponse"`
}

type selectors struct {
	Selectors []struct {
		Name  string `xml:"Name,attr"`
		Value string `xml:",chardata"`
	} `xml:"ReferenceParameters>SelectorSet>Selector"`
}

type wireShell struct {
	ShellID string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell ShellId"`
}

type commandResponse struct {
	CommandID string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandId"`
}

type received struct {
	Streams []struct {
		Name      string `xml:"Name,attr"`
		CommandID string `xml:"CommandId,attr"`
		Data      string `xml:",chardata"`
	} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Stream"`
	State *struct {
		CommandID string `xml:"CommandId,attr"`
		State     string `xml:"State,attr"`
	} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandState"`
}

// parse reads a reply, of one envelope and nothing behind it. Its size is bounded
// by the transport.
func parse(data []byte) (*reply, error) {
	if err := shallow(data); err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	r := &reply{}
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("the reply is no SOAP envelope: %w", err)
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if c, ok := t.(xml.CharData); err != nil || !ok || len(bytes.TrimSpace(c)) > 0 {
			return nil, errors.New("something follows the reply's envelope")
		}
	}
}

// maxDepth is how deep a reply may nest; those of Windows have nine levels.
const maxDepth = 32

// shallow refuses a reply that nests deeply or has a document type.
func shallow(data []byte) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	depth := 0
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the reply is no XML: %w", err)
		}
		switch t.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return fmt.Errorf("the reply nests deeper than %d levels", maxDepth)
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("the reply has a document type")
		}
	}
}
