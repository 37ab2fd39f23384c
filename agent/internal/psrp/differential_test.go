package psrp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/google/go-cmp/cmp"
	"github.com/smnsjas/go-psrpcore/fragments"
	"github.com/smnsjas/go-psrpcore/messages"
	"github.com/smnsjas/go-psrpcore/objects"
	"github.com/smnsjas/go-psrpcore/serialization"
)

// These tests hold this package against go-psrpcore, an independent
// implementation of the protocol, in both directions.

func TestDifferentialFragments(t *testing.T) {
	for _, n := range []int{1, 20, 32747, 32748, 100_000} {
		message := bytes.Repeat([]byte("psrp"), n/4+1)[:n]

		var ours Fragmenter
		assembler := fragments.NewAssembler()
		var theirs []byte
		for _, encoded := range ours.Split(message) {
			f, err := fragments.Decode(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if _, theirs, err = assembler.Add(f); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(theirs, message) {
			t.Errorf("%d bytes of ours became %d", n, len(theirs))
		}

		parts, err := fragments.NewFragmenter(MaxFragment).Fragment(message)
		if err != nil {
			t.Fatal(err)
		}
		var d Defragmenter
		var got [][]byte
		for _, f := range parts {
			encoded, err := f.Encode()
			if err != nil {
				t.Fatal(err)
			}
			complete, err := d.Write(encoded)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, complete...)
		}
		if len(got) != 1 || !bytes.Equal(got[0], message) {
			t.Errorf("%d bytes of theirs became %d messages", n, len(got))
		}
	}
}

func TestDifferentialMessages(t *testing.T) {
	ours := Message{ToServer, CreatePipeline, testPool, testPipeline, []byte("<Nil />")}
	theirs := &messages.Message{
		Destination: messages.Destination(2), Type: messages.MessageType(CreatePipeline),
		RunspaceID: [16]byte(testPool), PipelineID: [16]byte(testPipeline), Data: []byte("<Nil />"),
	}
	encoded, err := theirs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(encoded, ours.Encode()); diff != "" {
		t.Errorf("(-theirs +ours)\n%s", diff)
	}
	back, err := messages.Decode(ours.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(theirs, back); diff != "" {
		t.Errorf("(-theirs +ours read by them)\n%s", diff)
	}
}

// plain reduces a value of ours to what go-psrpcore's parser returns for it.
func plain(v clixml.Value) any {
	switch v := v.(type) {
	case clixml.String:
		return string(v)
	case clixml.Bool:
		return bool(v)
	case clixml.Int32:
		return int32(v)
	case clixml.Int64:
		return int64(v)
	case clixml.Version:
		return string(v)
	case clixml.GUID:
		return strings.ToLower(string(v))
	case clixml.DateTime:
		at, _ := v.Time()
		return at
	case *clixml.Object:
		properties := map[string]any{}
		for _, m := range append(v.Props, v.Members...) {
			properties[m.Name] = plain(m.Value)
		}
		switch base := v.Base.(type) {
		case clixml.List:
			items := []any{}
			for _, item := range base.Items {
				items = append(items, plain(item))
			}
			return items
		case clixml.Dict:
			for _, e := range base {
				properties[clixml.Text(e.Key)] = plain(e.Value)
			}
			return properties
		}
		object := map[string]any{"types": v.Types, "properties": properties, "base": nil, "text": ""}
		if v.Base != nil {
			object["base"] = plain(v.Base)
		}
		if v.ToString != nil {
			object["text"] = *v.ToString
		}
		return object
	}
	return nil
}

// theirs reduces what go-psrpcore's parser returns to the same form.
func theirs(v any) any {
	switch v := v.(type) {
	case *serialization.PSObject:
		properties := map[string]any{}
		for name, p := range v.Properties {
			properties[name] = theirs(p)
		}
		if len(v.TypeNames) > 0 && strings.HasSuffix(v.TypeNames[0], "PrimitiveDictionary") {
			return properties
		}
		types := v.TypeNames
		if len(types) == 0 {
			types = nil
		}
		return map[string]any{"types": types, "properties": properties, "base": theirs(v.Value), "text": v.ToString}
	case interface{ URN() string }: // their GUID
		return strings.TrimPrefix(v.URN(), "urn:uuid:")
	case []any:
		items := []any{}
		for _, item := range v {
			items = append(items, theirs(item))
		}
		return items
	case map[string]any:
		properties := map[string]any{}
		for name, p := range v {
			properties[name] = theirs(p)
		}
		return properties
	}
	return v
}

// TestDifferentialOurs has what this package writes read by both.
func TestDifferentialOurs(t *testing.T) {
	values := map[string]clixml.Value{
		"nil": clixml.Nil{}, "empty": clixml.String(""), "escapes": clixml.String("a<b>&\"c\"\r\n_x000A_\x01 Zürich 東京 😀"),
		"bool": clixml.Bool(true), "int": clixml.Int32(-5), "long": clixml.Int64(1 << 40), "version": clixml.Version("1.2.3.4"),
		"guid": clixml.GUID("792e5b37-4505-47ef-b7d2-8711bb7affa8"), "time": clixml.DateTime("2018-06-13T23:46:12.1316332+00:00"),
		"enum": clixml.Enum("A.B", "Default", 2), "bag": clixml.Bag(clixml.M("a", clixml.String("b")), clixml.M("n", clixml.Nil{})),
		"list": clixml.Bag(clixml.M("l", &clixml.Object{Base: clixml.List{Items: []clixml.Value{clixml.Int32(1), clixml.String("x")}}})),
		"dictionary": &clixml.Object{
			Types: []string{typeHashtable, typeObject},
			Base:  clixml.Dict{{Key: clixml.String("k"), Value: clixml.Int32(1)}},
		},
	}
	for name, v := range values {
		data := clixml.Marshal(v)
		d := serialization.NewDeserializer()
		got, err := d.Deserialize(data)
		if err != nil || len(got) != 1 {
			t.Errorf("%s: they read %d values in %s: %v", name, len(got), data, err)
			continue
		}
		if diff := cmp.Diff(theirs(got[0]), plain(v)); diff != "" {
			t.Errorf("%s: (-theirs +ours) %s", name, diff)
		}
	}
	// Whole messages: they must at least read the properties that decide.
	record := ErrorRecord{Message: "m", FullyQualifiedErrorID: "F", Activity: "A"}
	for _, tt := range []struct {
		m    Message
		want map[string]any
	}{
		{NewPoolState(testPool, PoolOpened, nil), map[string]any{"RunspaceState": int32(2)}},
		{NewPipelineState(testPool, testPipeline, PipelineFailed, &record), map[string]any{"PipelineState": int32(5)}},
		{NewErrorRecord(testPool, testPipeline, record), map[string]any{"FullyQualifiedErrorId": "F", "ErrorCategory_Activity": "A"}},
		{NewProgress(testPool, testPipeline, Progress{Activity: "a", Percent: 40}), map[string]any{"Activity": "a", "PercentComplete": int32(40)}},
		{NewInitRunspacePool(testPool), map[string]any{"MinRunspaces": int32(1), "MaxRunspaces": int32(1)}},
		{NewSessionCapability(ToServer, testPool), map[string]any{"protocolversion": "2.3"}},
	} {
		got, err := serialization.NewDeserializer().Deserialize(tt.m.Data)
		if err != nil || len(got) != 1 {
			t.Errorf("%v: %v", tt.m.Type, err)
			continue
		}
		o := got[0].(*serialization.PSObject)
		for name, want := range tt.want {
			if o.Properties[name] != want {
				t.Errorf("%v: %s is %v, want %v", tt.m.Type, name, o.Properties[name], want)
			}
		}
	}
}

// TestDifferentialTheirs has what go-psrpcore writes read by this package.
func TestDifferentialTheirs(t *testing.T) {
	at := time.Date(2018, 6, 13, 23, 46, 12, 131633200, time.UTC)
	values := map[string]struct {
		v    any
		want any
	}{
		"nil": {nil, nil}, "string": {"a<b>&\"c\"\r\n_x000A_\x01 Zürich 東京 😀", "a<b>&\"c\"\r\n_x000A_\x01 Zürich 東京 😀"},
		"bool": {true, true}, "int": {int32(-5), int32(-5)}, "long": {int64(1 << 40), int64(1 << 40)}, "time": {at, at},
		"guid": {messages.Message{RunspaceID: [16]byte(testPool)}.RunspaceID, strings.ToLower(testPool.String())},
		"list": {[]any{int32(1), "x", nil}, []any{int32(1), "x", nil}},
		"hash": {map[string]any{"k": "v", "n": int32(1)}, map[string]any{"k": "v", "n": int32(1)}},
	}
	for name, tt := range values {
		for _, wrapped := range []bool{false, true} {
			s := serialization.NewSerializer()
			write := s.SerializeRaw
			if wrapped {
				write = s.Serialize
			}
			data, err := write(tt.v)
			if err != nil {
				t.Fatal(err)
			}
			v, err := clixml.Parse(data)
			if err != nil {
				t.Errorf("%s: %s: %v", name, data, err)
				continue
			}
			if diff := cmp.Diff(tt.want, plain(v)); diff != "" {
				t.Errorf("%s: %s (-theirs +ours) %s", name, data, diff)
			}
		}
	}
}

// TestDifferentialCommand has a command that go-psrpcore writes read by our
// server's half.
func TestDifferentialCommand(t *testing.T) {
	shell := objects.NewPowerShell()
	shell.AddCommand("New-RegistrationToken", false)
	shell.AddParameter("BillingModel", "Capacity")
	shell.AddParameter("TimeoutInSeconds", int32(5))
	data, err := serialization.NewSerializer().SerializeRaw(shell)
	if err != nil {
		t.Fatal(err)
	}
	v, err := clixml.Parse(data)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	request, err := ParseCreatePipeline(v)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	want := [][]Stage{{{Command: Command{"New-RegistrationToken", []Parameter{
		Param("BillingModel", "Capacity"), Number("TimeoutInSeconds", 5)}}}}}
	if diff := cmp.Diff(want, request.Statements); diff != "" {
		t.Errorf("(-want +got)\n%s%s", diff, fmt.Sprintf("%.2000s", data))
	}
}
