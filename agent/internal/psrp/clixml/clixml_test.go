package clixml

import "testing"

func FuzzCLIXML(f *testing.F) {
	f.Add([]byte(`<Obj RefId="0"><MS><I32 N="RunspaceState">2</I32></MS></Obj>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
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
	})
}
