package psrp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/google/go-cmp/cmp"
)

var (
	testPool     = guid("4406A0C8-1748-4783-910F-50F21BDC7ADE")
	testPipeline = guid("309F7D49-62AD-4ED4-AB02-174DC96A46EC")
)

func guid(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

func TestGUID(t *testing.T) {
	const s = "4406A0C8-1748-4783-910F-50F21BDC7ADE"
	if got := guid(strings.ToLower(s)).String(); got != s {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"", s[1:], s + "0", strings.Replace(s, "-", "0", 1), strings.Replace(s, "A", "G", 1),
		"{" + s[2:] + "}", "é" + s[2:]} {
		if g, err := ParseGUID(bad); err == nil {
			t.Errorf("%q is taken as %s", bad, g)
		}
	}
	g, err := NewGUID(bytes.NewReader(bytes.Repeat([]byte{0xff}, 16)))
	if err != nil || g.String() != "FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF" {
		t.Errorf("a random GUID is %s, %v", g, err)
	}
	if _, err := NewGUID(strings.NewReader("short")); err == nil {
		t.Error("a GUID was made of 5 bytes")
	}
	text, _ := g.MarshalText()
	var back GUID
	if err := back.UnmarshalText(text); err != nil || back != g {
		t.Errorf("%s came back as %s, %v", g, back, err)
	}
}

func TestMessageBytes(t *testing.T) {
	m := Message{ToClient, PipelineOutput, testPool, testPipeline, []byte("<Nil />")}
	const want = "01000000" + "04100400" +
		"c8a0064448178347910f50f21bdc7ade" + "497d9f30ad62d44eab02174dc96a46ec" + "efbbbf" + "3c4e696c202f3e"
	got := m.Encode()
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	back, err := DecodeMessage(got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Error(diff)
	}
	m.To = ToServer
	if bytes.Contains(m.Encode(), byteOrderMark) {
		t.Error("a message to the server has a byte order mark")
	}
	if s := PipelineOutput.String() + " " + MessageType(5).String(); s != "PIPELINE_OUTPUT message type 0x00000005" {
		t.Errorf("the names are %q", s)
	}
	for _, bad := range [][]byte{nil, got[:39], append([]byte{3}, got[1:]...), append([]byte{0}, got[1:]...)} {
		if m, err := DecodeMessage(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v, %v", bad, m, err)
		}
	}
}

// TestOpeningBytes holds what is sent to open a pool, to the byte.
func TestOpeningBytes(t *testing.T) {
	const capability = `<Obj RefId="0"><MS><Version N="protocolversion">2.3</Version><Version N="PSVersion">2.0</Version><Version N="SerializationVersion">1.1.0.1</Version></MS></Obj>`
	const initialise = `<Obj RefId="0"><MS><I32 N="MinRunspaces">1</I32><I32 N="MaxRunspaces">1</I32>` +
		`<Obj N="PSThreadOptions" RefId="1"><TN RefId="0"><T>System.Management.Automation.Runspaces.PSThreadOptions</T><T>System.Enum</T><T>System.ValueType</T><T>System.Object</T></TN><ToString>Default</ToString><I32>0</I32></Obj>` +
		`<Obj N="ApartmentState" RefId="2"><TN RefId="1"><T>System.Management.Automation.Runspaces.ApartmentState</T><T>System.Enum</T><T>System.ValueType</T><T>System.Object</T></TN><ToString>Unknown</ToString><I32>2</I32></Obj>` +
		`<Obj N="HostInfo" RefId="3"><MS><B N="_isHostNull">true</B><B N="_isHostUINull">true</B><B N="_isHostRawUINull">true</B><B N="_useRunspaceHost">true</B></MS></Obj>` +
		`<Nil N="ApplicationArguments" /></MS></Obj>`
	for want, m := range map[string]Message{capability: NewSessionCapability(ToServer, testPool), initialise: NewInitRunspacePool(testPool)} {
		if diff := cmp.Diff(want, string(m.Data)); diff != "" {
			t.Errorf("%v: %s", m.Type, diff)
		}
	}
}

// TestCommandParameters holds the form of each parameter, and that a server
// reads it as it was meant.
func TestCommandParameters(t *testing.T) {
	c := Command{"New-AzureStackActivation", []Parameter{
		Param("ActivationKey", "a<b>_x000A_\n"), Number("TimeoutInSeconds", 1800), Switch("Force", true), Switch("AsJob", false),
	}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	m := NewCreatePipeline(testPool, testPipeline, c)
	for _, want := range []string{
		`<S N="Cmd">New-AzureStackActivation</S><B N="IsScript">false</B>`,
		`<MS><S N="N">ActivationKey</S><S N="V">a&lt;b&gt;_x005F_x000A__x000A_</S></MS>`,
		`<MS><S N="N">TimeoutInSeconds</S><I32 N="V">1800</I32></MS>`,
		`<MS><S N="N">Force</S><B N="V">true</B></MS>`,
		`<MS><S N="N">AsJob</S><B N="V">false</B></MS>`,
		`<B N="NoInput">true</B>`,
		`<B N="AddToHistory">false</B>`,
	} {
		if !strings.Contains(string(m.Data), want) {
			t.Errorf("there is no %s in\n%s", want, m.Data)
		}
	}
	if strings.Contains(string(m.Data), `"IsScript">true`) {
		t.Error("a script is sent")
	}
	v, err := m.Value()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCreatePipeline(v)
	if err != nil {
		t.Fatal(err)
	}
	want := PipelineRequest{NoInput: true, Statements: [][]Stage{{{Command: c}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCheckCommand(t *testing.T) {
	for _, c := range []Command{
		{},
		{"A", []Parameter{Param("", "x")}},
		{"A", []Parameter{Param("-Name", "x")}},
		{"A", []Parameter{Param("Name", "x"), Param("NAME", "y")}},
		{"A", []Parameter{{"Name", nil}}},
		{"A", []Parameter{{"Name", clixml.Nil{}}}},
		{"A", []Parameter{{"Name", clixml.Bag()}}},
	} {
		if err := c.Check(); err == nil {
			t.Errorf("%v is taken", c)
		}
	}
}

// TestBind has every form in which clients write arguments.
func TestBind(t *testing.T) {
	present := func(on bool) clixml.Value {
		return &clixml.Object{
			Types: []string{"System.Management.Automation.SwitchParameter", "System.ValueType", "System.Object"},
			Props: []clixml.Member{clixml.M("IsPresent", clixml.Bool(on))},
		}
	}
	s := func(v string) clixml.Value { return clixml.String(v) }
	null := clixml.Nil{}
	tests := []struct {
		name  string
		given []Parameter
		want  []Parameter
		wrong string
	}{
		{"undashed", []Parameter{{"License", s("x")}, {"Force", clixml.Bool(true)}}, []Parameter{{"License", s("x")}, {"Force", clixml.Bool(true)}}, ""},
		{"undashed null", []Parameter{{"License", null}}, []Parameter{{"License", null}}, ""},
		{"dashed", []Parameter{{"-License", s("x")}}, []Parameter{{"License", s("x")}}, ""},
		{"dashed colon", []Parameter{{"-License:", s("x")}}, []Parameter{{"License", s("x")}}, ""},
		{"dashed pair", []Parameter{{"-License", null}, {"", s("x")}}, []Parameter{{"License", s("x")}}, ""},
		{"colon pair", []Parameter{{"-Force:", null}, {"", clixml.Bool(false)}}, []Parameter{{"Force", clixml.Bool(false)}}, ""},
		{"bare switch", []Parameter{{"-Force", null}}, []Parameter{{"Force", clixml.Bool(true)}}, ""},
		{"switch then positional", []Parameter{{"-Force", null}, {"", s("x")}}, []Parameter{{"Force", clixml.Bool(true)}, {"", s("x")}}, ""},
		{"switch object", []Parameter{{"Force", present(true)}, {"AsJob", present(false)}}, []Parameter{{"Force", clixml.Bool(true)}, {"AsJob", clixml.Bool(false)}}, ""},
		{"positional", []Parameter{{"", s("a")}, {"", s("b")}}, []Parameter{{"", s("a")}, {"", s("b")}}, ""},
		{"twice", []Parameter{{"License", s("x")}, {"-license", s("y")}}, nil, "twice"},
		{"no value", []Parameter{{"-License", null}}, nil, "lacks its value"},
		{"no value before another", []Parameter{{"-License", null}, {"-Force", null}}, nil, "lacks its value"},
	}
	for _, tt := range tests {
		// Through the wire, so that the forms are those of a message.
		v, err := NewCreatePipeline(testPool, testPipeline, Command{"Save-HCILicense", tt.given}).Value()
		if err != nil {
			t.Fatal(err)
		}
		request, err := ParseCreatePipeline(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := request.Statements[0][0].Bind(func(name string) bool {
			return strings.EqualFold(name, "Force") || strings.EqualFold(name, "AsJob")
		})
		if tt.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s: error %v", tt.name, err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
}

// TestBothEnds has every message that the endpoint writes read by the client's
// half, through the bytes.
func TestBothEnds(t *testing.T) {
	record := ErrorRecord{
		Message: "Cannot connect to N22R1-S5 to get hardware info\r\n<x>", FullyQualifiedErrorID: "RuntimeException",
		Category: CategoryResourceBusy, CategoryMessage: "ResourceBusy: (:) [Get-X], RuntimeException", Activity: "Get-X",
		Reason: "RuntimeException", TargetName: "a", TargetType: "String", Exception: "System.InvalidOperationException",
	}
	read := func(m Message) clixml.Value {
		t.Helper()
		back, err := DecodeMessage(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if back.Pool != testPool {
			t.Errorf("%v: the pool is %s", m.Type, back.Pool)
		}
		v, err := back.Value()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	check := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", what, err, diff)
		}
	}

	version, err := ParseSessionCapability(read(NewSessionCapability(ToServer, testPool)))
	check("capability", "2.3", version, err)
	request, err := ParseInitRunspacePool(read(NewInitRunspacePool(testPool)))
	check("init", PoolRequest{1, 1, true}, request, err)
	table, _ := clixml.Get(read(NewApplicationPrivateData(testPool, "5.1.17763.1")), "ApplicationPrivateData")
	table, _ = clixml.Get(table, "PSVersionTable")
	build, _ := clixml.Get(table, "BuildVersion")
	check("private data", clixml.Value(clixml.Version("10.0.17763.1")), build, nil)

	for _, r := range []*ErrorRecord{nil, &record} {
		poolState, got, err := ParsePoolState(read(NewPoolState(testPool, PoolBroken, r)))
		check("pool state", PoolBroken, poolState, err)
		check("pool state", r, got, nil)
		state, got, err := ParsePipelineState(read(NewPipelineState(testPool, testPipeline, PipelineFailed, r)))
		check("state", PipelineFailed, state, err)
		check("state", r, got, nil)
	}
	got, err := ParseErrorRecord(read(NewErrorRecord(testPool, testPipeline, record)))
	check("error record", record, got, err)
	check("output", clixml.Value(clixml.String("x")), read(NewOutput(testPool, testPipeline, clixml.String("x"))), nil)
	for _, kind := range []MessageType{DebugRecord, VerboseRecord, WarningRecord, InformationRecord} {
		r := Record{kind, "a\nb"}
		check(kind.String(), r, ParseRecord(kind, read(NewRecord(testPool, testPipeline, r))), nil)
	}
	for _, p := range []Progress{
		{"Activate", "step 1", "copying", 3, -1, 40, 90, false},
		{"Activate", "", "", 3, 1, -1, -1, true},
	} {
		check("progress", p, ParseProgress(read(NewProgress(testPool, testPipeline, p))), nil)
	}
	for _, c := range []HostCall{{7, 11, "ReadLine"}, {-100, 16, "WriteLine2"}} {
		call, err := ParseHostCall(read(NewHostCall(testPool, testPipeline, c)))
		check("host call", c, call, err)
		if call.WantsAnswer() != (c.ID == 7) {
			t.Errorf("host call %d wants an answer: %t", c.ID, call.WantsAnswer())
		}
		answered, failure, err := ParseHostResponse(read(NewHostError(testPool, testPipeline, c)))
		check("host response", c, answered, err)
		if failure == nil || failure.FullyQualifiedErrorID != "HostMethodNotAvailable" {
			t.Errorf("host response: %v", failure)
		}
	}
	read(NewConnectRunspacePool(testPool))
}

func TestMalformedContents(t *testing.T) {
	parse := map[string]func(clixml.Value) error{
		"pool state":     func(v clixml.Value) error { _, _, err := ParsePoolState(v); return err },
		"pipeline state": func(v clixml.Value) error { _, _, err := ParsePipelineState(v); return err },
		"error record":   func(v clixml.Value) error { _, err := ParseErrorRecord(v); return err },
		"host call":      func(v clixml.Value) error { _, err := ParseHostCall(v); return err },
		"host response":  func(v clixml.Value) error { _, _, err := ParseHostResponse(v); return err },
		"init":           func(v clixml.Value) error { _, err := ParseInitRunspacePool(v); return err },
		"capability":     func(v clixml.Value) error { _, err := ParseSessionCapability(v); return err },
		"pipeline":       func(v clixml.Value) error { _, err := ParseCreatePipeline(v); return err },
	}
	values := []clixml.Value{clixml.Nil{}, clixml.String("x"), clixml.List{}, clixml.Dict{}}
	bags := []clixml.Value{
		clixml.Bag(),
		clixml.Bag(clixml.M("RunspaceState", clixml.String("2")), clixml.M("PipelineState", clixml.Nil{}),
			clixml.M("ci", clixml.Int64(1)), clixml.M("mi", clixml.Int64(1<<40)), clixml.M("protocolversion", clixml.String("2.3")),
			clixml.M("MinRunspaces", clixml.Int32(2)), clixml.M("MaxRunspaces", clixml.Int32(1)), clixml.M("PowerShell", clixml.Nil{})),
		clixml.Bag(clixml.M("PipelineState", clixml.Int32(5)), clixml.M("ExceptionAsErrorRecord", clixml.String("x")),
			clixml.M("PowerShell", clixml.Bag(clixml.M("Cmds", clixml.List{Items: []clixml.Value{clixml.Bag(clixml.M("Cmd", clixml.String("x")))}})))),
	}
	for name, f := range parse {
		for _, v := range append(values, bags...) {
			if _, isObject := v.(*clixml.Object); isObject && name == "error record" {
				continue // any object may be one
			}
			if err := f(v); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s of %s: %v", name, clixml.Marshal(v), err)
			}
		}
	}
}

// FuzzMessage holds that no message breaks a reader of either side, and that
// what decodes encodes to the same bytes, but for the byte order mark.
func FuzzMessage(f *testing.F) {
	for _, m := range []Message{
		NewSessionCapability(ToClient, GUID{}), NewInitRunspacePool(testPool),
		NewCreatePipeline(testPool, testPipeline, Command{"Get-X", []Parameter{Param("A", "b"), {"-C", clixml.Nil{}}}}),
		NewPipelineState(testPool, testPipeline, PipelineFailed, &ErrorRecord{Message: "m"}),
		NewPoolState(testPool, PoolOpened, nil),
		NewProgress(testPool, testPipeline, Progress{Activity: "a"}),
		NewRecord(testPool, testPipeline, Record{InformationRecord, "i"}),
		NewHostCall(testPool, testPipeline, HostCall{1, 11, "ReadLine"}),
		NewHostError(testPool, testPipeline, HostCall{1, 11, "ReadLine"}),
		{To: ToServer, Type: EndOfPipelineInput, Pool: testPool, Pipeline: testPipeline},
	} {
		f.Add(m.Encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMessage(data)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(m.Data, byteOrderMark) { // two marks: only the first is one
			unmarked := append(append([]byte{}, data[:MessageHeaderLen]...), bytes.TrimPrefix(data[MessageHeaderLen:], byteOrderMark)...)
			marked := m.Encode()
			if got := append(append([]byte{}, marked[:MessageHeaderLen]...), bytes.TrimPrefix(marked[MessageHeaderLen:], byteOrderMark)...); !bytes.Equal(got, unmarked) {
				t.Fatalf("%x encodes to %x", unmarked, got)
			}
		}
		v, err := m.Value()
		if err != nil {
			return
		}
		// All of them, whatever the type says: none may break.
		_, _, _ = ParsePoolState(v)
		if state, record, err := ParsePipelineState(v); err == nil && record != nil {
			again, err := NewPipelineState(m.Pool, m.Pipeline, state, record).Value()
			if err != nil {
				t.Fatal(err)
			}
			if _, back, err := ParsePipelineState(again); err != nil || back.Message != record.Message || back.FullyQualifiedErrorID != record.FullyQualifiedErrorID {
				t.Fatalf("the record %v came back as %v, %v", record, back, err)
			}
		}
		_, _ = ParseErrorRecord(v)
		_ = ParseRecord(m.Type, v)
		_ = ParseProgress(v)
		_, _ = ParseHostCall(v)
		_, _, _ = ParseHostResponse(v)
		_, _ = ParseInitRunspacePool(v)
		_, _ = ParseSessionCapability(v)
		if request, err := ParseCreatePipeline(v); err == nil {
			for _, statement := range request.Statements {
				for _, stage := range statement {
					_, _ = stage.Bind(func(string) bool { return true })
				}
			}
		}
	})
}
