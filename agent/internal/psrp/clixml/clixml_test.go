package clixml

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// values pairs what Windows writes with what it means; each row is tried in
// both directions.
var values = []struct {
	xml string
	v   Value
}{
	{`<Nil />`, Nil{}},
	{`<S></S>`, String("")},
	{`<S> </S>`, String(" ")},
	{`<S>a &lt;b&gt; &amp; "c" 'd'</S>`, String(`a <b> & "c" 'd'`)},
	{`<S>one_x000D__x000A_two_x0009_three</S>`, String("one\r\ntwo\tthree")},
	{`<S>Zürich 東京</S>`, String("Zürich 東京")},
	{`<S>_xD83D__xDE00_</S>`, String("😀")},
	{`<S>_x005F_x000A_ _y __</S>`, String("_x000A_ _y __")},
	{`<S>_x0000__x001F__x007F__x0085_</S>`, String("\x00\x1f\x7f\u0085")},
	{`<S>_xFFFE__xFFFF_</S>`, String("\ufffe\uffff")},
	{`<B>true</B>`, Bool(true)},
	{`<B>false</B>`, Bool(false)},
	{`<I32>-2147483648</I32>`, Int32(-1 << 31)},
	{`<I64>9223372036854775807</I64>`, Int64(1<<63 - 1)},
	{`<Version>1.2309.0.4</Version>`, Version("1.2309.0.4")},
	{`<G>792e5b37-4505-47ef-b7d2-8711bb7affa8</G>`, GUID("792e5b37-4505-47ef-b7d2-8711bb7affa8")},
	{`<DT>2018-06-13T23:46:12.1316332+00:00</DT>`, DateTime("2018-06-13T23:46:12.1316332+00:00")},
	{`<DT>2018-06-13T23:46:12</DT>`, DateTime("2018-06-13T23:46:12")},
	{`<TS>-P1DT2H3.5S</TS>`, TimeSpan("-P1DT2H3.5S")},
	{`<U32>4040</U32>`, Opaque{"U32", "4040"}},
	{`<SB>-127</SB>`, Opaque{"SB", "-127"}},
	{`<Db>1E+21</Db>`, Opaque{"Db", "1E+21"}},
	{`<URI>https://a.example/?q=_x0020_</URI>`, Opaque{"URI", "https://a.example/?q=_x0020_"}},
	{`<SS>MDEyMw==</SS>`, Opaque{"SS", "MDEyMw=="}},
	{`<SBK>Get-Item</SBK>`, Opaque{"SBK", "Get-Item"}},
	{`<Obj RefId="0"></Obj>`, &Object{}},
	{
		`<Obj RefId="0"><TN RefId="0"><T>System.Management.Automation.Runspaces.PSThreadOptions</T>` +
			`<T>System.Enum</T><T>System.ValueType</T><T>System.Object</T></TN><ToString>Default</ToString><I32>0</I32></Obj>`,
		Enum("System.Management.Automation.Runspaces.PSThreadOptions", "Default", 0),
	},
	{
		`<Obj RefId="0"><MS><I32 N="RunspaceState">2</I32><Nil N="a&quot;b_x000A_" /></MS></Obj>`,
		Bag(M("RunspaceState", Int32(2)), M("a\"b\n", Nil{})),
	},
	{
		`<Obj RefId="0"><Props><S N="A">p</S></Props><MS><S N="A">m</S><MS N="PSStandardMembers"><S N="B">s</S></MS></MS></Obj>`,
		&Object{Props: []Member{M("A", String("p"))}, Members: []Member{
			M("A", String("m")), M("PSStandardMembers", MemberSet{M("B", String("s"))}),
		}},
	},
	{
		`<Obj RefId="0"><TN RefId="0"><T>T</T></TN><DCT><En><S N="Key">k</S><Obj N="Value" RefId="1"><TNRef RefId="0" /><DCT /></Obj></En></DCT></Obj>`,
		&Object{Types: []string{"T"}, Base: Dict{{String("k"), &Object{Types: []string{"T"}, Base: Dict{}}}}},
	},
	{`<Obj RefId="0"><LST><I32>1</I32><Nil /></LST></Obj>`, &Object{Base: List{"LST", []Value{Int32(1), Nil{}}}}},
	{`<Obj RefId="0"><STK><S>a</S></STK></Obj>`, &Object{Base: List{"STK", []Value{String("a")}}}},
	{`<Obj RefId="0"><QUE /></Obj>`, &Object{Base: List{Kind: "QUE"}}},
	{`<Obj RefId="0"><IE><B>true</B></IE></Obj>`, &Object{Base: List{"IE", []Value{Bool(true)}}}},
	{`<Obj RefId="0"><Obj RefId="1"><S>inner</S></Obj><MS><S N="a">b</S></MS></Obj>`,
		&Object{Base: &Object{Base: String("inner")}, Members: []Member{M("a", String("b"))}}},
}

func TestValues(t *testing.T) {
	for _, tt := range values {
		got, err := Parse([]byte(tt.xml))
		if err != nil {
			t.Errorf("%s: %v", tt.xml, err)
			continue
		}
		if diff := cmp.Diff(tt.v, got); diff != "" {
			t.Errorf("%s parses to something else (-want +got):\n%s", tt.xml, diff)
		}
		if diff := cmp.Diff(tt.xml, string(Marshal(tt.v))); diff != "" {
			t.Errorf("%#v marshals to something else (-want +got):\n%s", tt.v, diff)
		}
	}
}

// TestSpellings has what is accepted though Windows writes it otherwise.
func TestSpellings(t *testing.T) {
	tests := []struct {
		xml string
		v   Value
	}{
		{"\uFEFF<B>1</B>", Bool(true)},
		{" \r\n<B>0</B>\n", Bool(false)},
		{`<S/>`, String("")},
		{`<S><![CDATA[a<b]]>&#x41;</S>`, String("a<bA")},
		{`<S>_x000d__x0041_</S>`, String("\rA")},
		{`<S>_X0041_</S>`, String("A")},
		{`<S>_x00G1_ _x41_ _x004</S>`, String("_x00G1_ _x41_ _x004")},
		{`<S>_xD83D_ _xDE00_</S>`, String("\uFFFD \uFFFD")},
		{`<S>_xD83D__x0041_</S>`, String("\uFFFDA")},
		{`<Obj><MS><S N="a">b</S></MS></Obj>`, Bag(M("a", String("b")))},
		{`<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04"><I32>4</I32></Objs>`, Int32(4)},
		{"<Obj RefId=\"7\">\n  <MS>\n    <B N=\"x\">true</B>\n  </MS>\n</Obj>", Bag(M("x", Bool(true)))},
	}
	for _, tt := range tests {
		got, err := Parse([]byte(tt.xml))
		if err != nil {
			t.Errorf("%s: %v", tt.xml, err)
		} else if diff := cmp.Diff(tt.v, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.xml, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := func(n int) string {
		return strings.Repeat(`<Obj><LST>`, n) + strings.Repeat(`</LST></Obj>`, n)
	}
	sets := func(n int) string {
		return `<Obj><MS>` + strings.Repeat(`<MS N="a">`, n) + strings.Repeat(`</MS>`, n) + `</MS></Obj>`
	}
	list := func(item string, n int) string {
		return `<Obj><LST>` + strings.Repeat(item, n) + `</LST></Obj>`
	}
	tests := []struct {
		xml  string
		want error
	}{
		{"", ErrSyntax},
		{"  ", ErrSyntax},
		{"text", ErrSyntax},
		{"<S>a", ErrSyntax},
		{"<S>a</B>", ErrSyntax},
		{"<S>a</S><S>b</S>", ErrSyntax},
		{"<S>a</S>b", ErrSyntax},
		{"<S><B>true</B></S>", ErrSyntax},
		{"<S>\x01</S>", ErrSyntax},
		{"<S>\xff</S>", ErrSyntax},
		{"<S>&nbsp;</S>", ErrSyntax},
		{`<!DOCTYPE a [<!ENTITY b "c">]><S>&b;</S>`, ErrSyntax},
		{`<?xml version="1.0"?><S>a</S>`, ErrSyntax},
		{`<!-- a --><S>a</S>`, ErrSyntax},
		{`<S>a<!-- b --></S>`, ErrSyntax},
		{`<S N="a">b</S>`, ErrSyntax},
		{`<S RefId="1">b</S>`, ErrSyntax},
		{`<S M="a">b</S>`, ErrSyntax},
		{`<S xmlns="urn:other">b</S>`, ErrSyntax},
		{`<Whatever>1</Whatever>`, ErrSyntax},
		{`<PR>1</PR>`, ErrSyntax},
		{`<Nil>1</Nil>`, ErrSyntax},
		{`<Nil><S>1</S></Nil>`, ErrSyntax},
		{`<B>TRUE</B>`, ErrSyntax},
		{`<B></B>`, ErrSyntax},
		{`<I32>2147483648</I32>`, ErrSyntax},
		{`<I32> 1</I32>`, ErrSyntax},
		{`<I64>1.0</I64>`, ErrSyntax},
		{`<By>256</By>`, ErrSyntax},
		{`<By>-1</By>`, ErrSyntax},
		{`<SB>128</SB>`, ErrSyntax},
		{`<Version>1</Version>`, ErrSyntax},
		{`<Version>1.2.3.4.5</Version>`, ErrSyntax},
		{`<Version>1.-2</Version>`, ErrSyntax},
		{`<Version>1.02</Version>`, ErrSyntax},
		{`<Version>1.4294967296</Version>`, ErrSyntax},
		{`<G>792e5b37450547efb7d28711bb7affa8</G>`, ErrSyntax},
		{`<G>792e5b37-4505-47ef-b7d2-8711bb7affaZ</G>`, ErrSyntax},
		{`<DT>yesterday</DT>`, ErrSyntax},
		{`<TS>5 minutes</TS>`, ErrSyntax},
		{`<Ref RefId="0" />`, ErrSyntax},
		{`<Ref />`, ErrSyntax},
		{`<Obj RefId="0"><Ref RefId="0" /></Obj>`, ErrSyntax},
		{`<Obj RefId="x"></Obj>`, ErrSyntax},
		{`<Obj RefId="-1"></Obj>`, ErrSyntax},
		{`<Obj RefId="4294967296"></Obj>`, ErrSyntax},
		{`<Obj RefId="0"><MS><Obj N="a" RefId="0"></Obj></MS></Obj>`, ErrSyntax},
		{`<Obj><TNRef RefId="0" /></Obj>`, ErrSyntax},
		{`<Obj><TN><T>a</T></TN></Obj>`, ErrSyntax},
		{`<Obj><TN RefId="0"><S>a</S></TN></Obj>`, ErrSyntax},
		{`<Obj><TN RefId="0"></TN><TNRef RefId="0" /></Obj>`, ErrSyntax},
		{`<Obj><MS><S>a</S></MS></Obj>`, ErrSyntax},
		{`<Obj><MS>a</MS></Obj>`, ErrSyntax},
		{`<Obj><MS></MS><MS></MS></Obj>`, ErrSyntax},
		{`<Obj><Props></Props><Props></Props></Obj>`, ErrSyntax},
		{`<Obj><ToString>a</ToString><ToString>b</ToString></Obj>`, ErrSyntax},
		{`<Obj><S>a</S><S>b</S></Obj>`, ErrSyntax},
		{`<Obj><LST></LST><DCT></DCT></Obj>`, ErrSyntax},
		{`<Obj><LST><S N="a">b</S></LST></Obj>`, ErrSyntax},
		{`<Obj><DCT><S>a</S></DCT></Obj>`, ErrSyntax},
		{`<Obj><DCT><En><S N="Key">a</S></En></DCT></Obj>`, ErrSyntax},
		{`<Obj><DCT><En><S N="Key">a</S><S N="Key">b</S></En></DCT></Obj>`, ErrSyntax},
		{`<Obj><DCT><En><S N="Key">a</S><S N="Value">b</S><S N="Value">b</S></En></DCT></Obj>`, ErrSyntax},
		{`<LST></LST>`, ErrSyntax},
		{`<DCT></DCT>`, ErrSyntax},
		{`<Objs></Objs>`, ErrSyntax},
		{`<Objs><S>a</S><S>b</S></Objs>`, ErrSyntax},
		{`<Objs><Objs><S>a</S></Objs></Objs>`, ErrSyntax},
		{deep(MaxDepth + 1), ErrLimit},
		{sets(MaxDepth), ErrLimit},
		{list(`<Nil />`, MaxValues), ErrLimit},
		{`<Obj><TN RefId="0">` + strings.Repeat(`<T></T>`, MaxValues) + `</TN></Obj>`, ErrLimit},
		{`<S>` + strings.Repeat("a", MaxBytes) + `</S>`, ErrLimit},
	}
	for _, tt := range tests {
		if v, err := Parse([]byte(tt.xml)); !errors.Is(err, tt.want) {
			t.Errorf("%.80s: got %v, error %v, want %v", tt.xml, v, err, tt.want)
		}
	}
	for _, allowed := range []string{deep(MaxDepth), sets(MaxDepth - 1), list(`<Nil />`, MaxValues-1)} {
		if _, err := Parse([]byte(allowed)); err != nil {
			t.Errorf("%.80s is within the bounds: %v", allowed, err)
		}
	}
}

// TestReferences holds that an object may stand in several places, and even in
// itself, and that it does so again after a round trip.
func TestReferences(t *testing.T) {
	const doc = `<Obj RefId="0"><MS><Obj N="a" RefId="1"><LST><Ref RefId="0" /></LST></Obj><Ref N="b" RefId="1" /></MS></Obj>`
	v, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := Get(v, "a")
	b, _ := Get(v, "b")
	items, _ := Items(a)
	if a != b || len(items) != 1 || items[0] != v {
		t.Errorf("the references were not kept: %p %p %v", a, b, items)
	}
	if got := string(Marshal(v)); got != doc {
		t.Errorf("got  %s\nwant %s", got, doc)
	}
}

func TestAccess(t *testing.T) {
	const doc = `<Obj RefId="0"><Obj RefId="1"><Props><S N="Value">inner</S><S N="Deep">d</S></Props></Obj>` +
		`<MS><S N="CloudID">x</S><S N="Value">outer</S><Obj N="N" RefId="2"><I32>4</I32></Obj>` +
		`<Obj N="H" RefId="3"><DCT><En><S N="Key">Key1</S><U16 N="Value">9</U16></En></DCT></Obj></MS></Obj>`
	v, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cloudid": "x", "VALUE": "outer", "Deep": "d", "N": "4"} {
		got, ok := Get(v, name)
		if !ok || Text(got) != want {
			t.Errorf("%s is %q, %t, want %q", name, Text(got), ok, want)
		}
	}
	if got, ok := Get(v, "none"); ok {
		t.Errorf("there is a property none: %v", got)
	}
	h, _ := Get(v, "H")
	inH, _ := Get(h, "key1")
	if n, ok := Int(inH); !ok || n != 9 {
		t.Errorf("H.key1 is %d, %t", n, ok)
	}
	n, _ := Get(v, "N")
	if i, ok := Int(n); !ok || i != 4 {
		t.Errorf("N is %d, %t", i, ok)
	}
	if _, ok := Int(String("4")); ok {
		t.Error("a string is taken as a number")
	}
	if _, ok := Int(Opaque{"U64", "18446744073709551615"}); ok {
		t.Error("a number over 63 bits is taken")
	}
	sw := &Object{Types: []string{"System.Management.Automation.SwitchParameter", "System.Object"},
		Props: []Member{M("IsPresent", Bool(true))}}
	if on, ok := Truth(sw); !on || !ok {
		t.Errorf("the switch parameter is %t, %t", on, ok)
	}
	if _, ok := Truth(Bag(M("IsPresent", Bool(true)))); ok {
		t.Error("any object with IsPresent is taken as a switch")
	}
	for _, none := range []Value{nil, (*Object)(nil), Nil{}, List{}} {
		if s := Text(none); s != "" {
			t.Errorf("the text of %v is %q", none, s)
		}
		if v, ok := Get(none, "a"); ok {
			t.Errorf("%v has a property: %v", none, v)
		}
	}
	if got, err := DateTime("2018-06-13T23:46:12.1316332+02:00").Time(); err != nil || got.UTC().Format("15:04:05.0000000") != "21:46:12.1316332" {
		t.Errorf("the time is %v, %v", got, err)
	}
}

// TestMarshalForeign has values that no parser returns, but code may build.
func TestMarshalForeign(t *testing.T) {
	tests := map[string]Value{
		`<Nil />`:                                 nil,
		`<S>_x000D_` + "\uFFFD" + `</S>`:          String("\r\xff"),
		`<Obj RefId="0"><LST /></Obj>`:            List{},
		`<Obj RefId="0"><DCT /></Obj>`:            Dict(nil),
		`<XD>a&#13;` + "\n\uFFFD" + `</XD>`:       Opaque{"XD", "a\r\n\x01"},
		`<Obj RefId="0"><Nil /></Obj>`:            &Object{Base: (*Object)(nil)},
		`<Obj RefId="0"><LST><Nil /></LST></Obj>`: List{Items: []Value{nil}},
	}
	for want, v := range tests {
		got := Marshal(v)
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, err := Parse(got); err != nil {
			t.Errorf("%q: %v", got, err)
		}
	}
}

// TestMemory holds what the largest documents of each kind cost.
func TestMemory(t *testing.T) {
	fill := func(item string) []byte {
		n := min((MaxBytes-60)/len(item), MaxValues-8)
		return []byte(`<Obj><LST>` + strings.Repeat(item, n) + `</LST></Obj>`)
	}
	docs := map[string][]byte{
		"one string":     []byte(`<S>` + strings.Repeat("a", MaxBytes-7) + `</S>`),
		"escapes":        []byte(`<S>` + strings.Repeat("_x0041_", (MaxBytes-7)/7) + `</S>`),
		"CDATA":          []byte(`<S>` + strings.Repeat("<![CDATA[a]]>", (MaxBytes-7)/13) + `</S>`),
		"nulls":          fill(`<Nil />`),
		"empty objects":  fill(`<Obj />`),
		"long strings":   fill(`<S>` + strings.Repeat("b", 70) + `</S>`),
		"entries":        []byte(`<Obj><DCT>` + strings.Repeat(`<En><S N="Key"/><Nil N="Value"/></En>`, MaxValues/3-1) + `</DCT></Obj>`),
		"one long name":  []byte(`<Obj><MS><Nil N="` + strings.Repeat("n", MaxBytes-40) + `"/></MS></Obj>`),
		"numbered types": numbered(),
	}
	for name, doc := range docs {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		v, err := Parse(doc)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%-14s %8d bytes, keeps %9d, allocates %9d", name, len(doc), kept, after.TotalAlloc-before.TotalAlloc)
		if kept > 24<<20 {
			t.Errorf("%s: %d bytes of XML keep %d bytes", name, len(doc), kept)
		}
		runtime.KeepAlive(v)
		runtime.KeepAlive(doc)
	}
}

func numbered() []byte {
	var b strings.Builder
	b.WriteString(`<Obj><LST>`)
	for i := range MaxValues/2 - 1 {
		fmt.Fprintf(&b, `<Obj RefId="%d"><TN RefId="%d"></TN></Obj>`, i, i)
	}
	b.WriteString(`</LST></Obj>`)
	return []byte(b.String())
}

// FuzzCLIXML holds that no document breaks the parser and that whatever it
// takes is stable: marshalled, parsed and marshalled again it is the same, and
// the strings in it survive.
func FuzzCLIXML(f *testing.F) {
	for _, tt := range values {
		f.Add([]byte(tt.xml))
	}
	f.Add([]byte(`<Obj RefId="0"><MS><Obj N="a" RefId="1"><LST><Ref RefId="0" /></LST></Obj><Ref N="b" RefId="1" /></MS></Obj>`))
	f.Add([]byte("\uFEFF<Objs Version=\"1.1.0.1\"><S>_xD83D_</S></Objs>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrLimit) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		first := Marshal(v)
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("what was marshalled cannot be parsed: %v\n%q", err, first)
		}
		if second := Marshal(again); string(first) != string(second) {
			t.Fatalf("marshalled twice, two results:\n%q\n%q", first, second)
		}
		if Text(v) != Text(again) {
			t.Fatalf("the text was %q and is %q", Text(v), Text(again))
		}
	})
}

// FuzzString holds that a string of any bytes comes back, but for what is no
// UTF-8.
func FuzzString(f *testing.F) {
	f.Add("_x000A_")
	f.Add("__x_X0041__")
	f.Add("a\r\n\x00<😀>\ufffe\xff\x80")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := Parse(Marshal(Bag(M("n"+s, String(s)))))
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		// Every byte that is no UTF-8 becomes U+FFFD, as where a string is ranged over.
		want := string([]rune(s))
		if got, ok := Get(v, "n"+want); !ok || Text(got) != want {
			t.Fatalf("%q came back as %q, %t", s, Text(got), ok)
		}
	})
}
