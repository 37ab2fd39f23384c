package peptest_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/masterzen/simplexml/dom"
	"github.com/masterzen/winrm"
	"github.com/masterzen/winrm/soap"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/peptest"
)

// client is a WSMan client on the library's own sealing transport, so that NTLM,
// multipart and sealing are checked by code of other people. It is a psrp.Shell
// without any retry.
type client struct {
	t       *testing.T
	winrm   *winrm.Client
	sealed  *winrm.Encryption
	session string
	shell   string
	timeout string     // OperationTimeout
	one     sync.Mutex // the library's transport breaks when two requests are under way
	lastID  string     // of the last Receive
}

func newClient(t *testing.T, srv *peptest.Server, password string) *client {
	t.Helper()
	host, port, err := net.SplitHostPort(srv.Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := winrm.NewEncryption("ntlm")
	if err != nil {
		t.Fatal(err)
	}
	parameters := *winrm.DefaultParameters
	parameters.TransportDecorator = func() winrm.Transporter { return sealed }
	c, err := winrm.NewClientWithParameters(winrm.NewEndpoint(host, n, false, false, nil, nil, nil, 0), srv.User, password, &parameters)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, winrm: c, sealed: sealed, session: guid(t), timeout: "PT60S"}
}

func guid(t *testing.T) string {
	t.Helper()
	id, err := psrp.NewGUID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// wsFault is a fault of the endpoint.
type wsFault struct {
	code uint64
	text string
}

func (f *wsFault) Error() string  { return fmt.Sprintf("fault %d: %s", f.code, f.text) }
func (f *wsFault) Definite() bool { return true }

type replyEnvelope struct {
	RelatesTo string `xml:"Header>RelatesTo"`
	Fault     *struct {
		Text   string `xml:"Reason>Text"`
		Detail struct {
			WSManFault struct {
				Code uint64 `xml:",attr"`
			}
		}
	} `xml:"Body>Fault"`
	Streams []string `xml:"Body>ReceiveResponse>Stream"`
	State   struct {
		State string `xml:",attr"`
	} `xml:"Body>ReceiveResponse>CommandState"`
}

// post sends one envelope; an empty id is a new message.
func (c *client) post(action, options, body, id string) (*replyEnvelope, error) {
	if id == "" {
		id = "uuid:" + guid(c.t)
	}
	selectors := ""
	if c.shell != "" {
		selectors = `<w:SelectorSet><w:Selector Name="ShellId">` + c.shell + `</w:Selector></w:SelectorSet>`
	}
	inner := `<s:Header><a:Action s:mustUnderstand="true">` + action + `</a:Action><a:To>http://host/wsman</a:To><a:MessageID>` + id + `</a:MessageID>` +
		`<a:ReplyTo><a:Address s:mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>` +
		`<w:ResourceURI s:mustUnderstand="true">http://schemas.microsoft.com/powershell/PrivilegedEndpoint</w:ResourceURI>` +
		`<w:MaxEnvelopeSize s:mustUnderstand="true">153600</w:MaxEnvelopeSize><w:OperationTimeout>` + c.timeout + `</w:OperationTimeout>` +
		`<p:SessionId>uuid:` + c.session + `</p:SessionId>` + selectors + options + `</s:Header><s:Body>` + body + `</s:Body>`
	root := dom.CreateElement("s:Envelope")
	for k, v := range map[string]string{"s": "http://www.w3.org/2003/05/soap-envelope", "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
		"w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd", "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd", "rsp": shellNS} {
		root.SetAttr("xmlns:"+k, v)
	}
	root.SetContent(inner)
	message := soap.NewMessage()
	message.Doc().SetRoot(root)
	c.one.Lock()
	text, err := c.sealed.Post(c.winrm, message)
	c.one.Unlock()
	if err != nil {
		return nil, err
	}
	var r replyEnvelope
	if err := xml.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("reply %.200q: %w", text, err)
	}
	if r.RelatesTo != id {
		return nil, fmt.Errorf("the reply relates to %s, not to %s", r.RelatesTo, id)
	}
	if r.Fault != nil {
		return nil, &wsFault{r.Fault.Detail.WSManFault.Code, r.Fault.Text}
	}
	return &r, nil
}

const (
	shellNS  = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	transfer = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
)

func (c *client) Create(_ context.Context, id string, creation []byte) error {
	_, err := c.post(transfer+"Create", `<w:OptionSet s:mustUnderstand="true"><w:Option MustComply="true" Name="protocolversion">2.3</w:Option></w:OptionSet>`,
		`<rsp:Shell ShellId="`+id+`"><rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams>`+
			`<creationXml xmlns="http://schemas.microsoft.com/powershell">`+base64.StdEncoding.EncodeToString(creation)+`</creationXml></rsp:Shell>`, "")
	if err == nil {
		c.shell = id
	}
	return err
}

func (c *client) Command(_ context.Context, id string, first []byte) error {
	_, err := c.post(shellNS+"/Command", "", `<rsp:CommandLine CommandId="`+id+`"><rsp:Command/><rsp:Arguments>`+
		base64.StdEncoding.EncodeToString(first)+`</rsp:Arguments></rsp:CommandLine>`, "")
	return err
}

func (c *client) Send(_ context.Context, id, stream string, fragment []byte) error {
	_, err := c.post(shellNS+"/Send", "", `<rsp:Send><rsp:Stream Name="`+stream+`"`+forCommand(id)+`>`+
		base64.StdEncoding.EncodeToString(fragment)+`</rsp:Stream></rsp:Send>`, "")
	return err
}

func forCommand(id string) string {
	if id == "" {
		return ""
	}
	return ` CommandId="` + id + `"`
}

func (c *client) Receive(ctx context.Context, id string) ([][]byte, bool, error) {
	for {
		streams, done, err := c.receive(id, "")
		if f, ok := err.(*wsFault); ok && f.code == 2150858793 && ctx.Err() == nil {
			continue
		}
		return streams, done, err
	}
}

// receive is one Receive with a message id.
func (c *client) receive(id, message string) (streams [][]byte, done bool, err error) {
	if message == "" {
		message = "uuid:" + guid(c.t)
	}
	c.lastID = message
	r, err := c.post(shellNS+"/Receive", "", `<rsp:Receive><rsp:DesiredStream`+forCommand(id)+`>stdout</rsp:DesiredStream></rsp:Receive>`, message)
	if err != nil {
		return nil, false, err
	}
	for _, s := range r.Streams {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, false, err
		}
		streams = append(streams, data)
	}
	return streams, strings.HasSuffix(r.State.State, "/Done"), nil
}

func (c *client) Signal(_ context.Context, id, code string) error {
	_, err := c.post(shellNS+"/Signal", "", `<rsp:Signal`+forCommand(id)+`><rsp:Code>`+code+`</rsp:Code></rsp:Signal>`, "")
	return err
}

func (c *client) Delete(context.Context) error {
	if c.shell == "" {
		return nil
	}
	_, err := c.post(transfer+"Delete", "", "", "")
	c.shell = ""
	return err
}
