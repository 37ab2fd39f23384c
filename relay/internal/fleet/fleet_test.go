package fleet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const (
	sub  = "11111111-2222-3333-4444-555555555555"
	sub2 = "11111111-2222-3333-4444-666666666666"
	one  = "aaaaaaaa-0000-0000-0000-000000000001"
	two  = "aaaaaaaa-0000-0000-0000-000000000002"
)

func TestParseReadsBothSpellings(t *testing.T) {
	want := []Stamp{
		{CloudID: one, Subscription: sub, Group: "azurestack", Name: "north"},
		{Agent: "site-b", Subscription: sub2, Location: "westeurope"},
	}
	for name, text := range map[string]string{
		"fleet.csv": "# where they are\ncloud-id,agent,subscription,group,name,location\n" + one + ",," + sub + ",azurestack,north,\n,site-b, " + sub2 + ",,,westeurope\n",
		"BOM.CSV":   "\ufeffCloud-ID,Agent,Subscription,Group,Name,Location\r\n" + one + ",," + sub + ",azurestack,north,\r\n,site-b," + sub2 + ",,,westeurope\r\n",
		"fleet.yaml": "stamps:\n- cloud-id: " + one + "\n  subscription: " + sub + "\n  group: azurestack\n  name: north\n" +
			"- agent: site-b\n  subscription: " + sub2 + "\n  location: westeurope\n",
	} {
		f, err := Parse(name, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, f.Stamps); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	row := one + "," + sub + "\n"
	for _, test := range []struct{ name, text, sentence string }{
		{"a.csv", "", "empty"},
		{"a.yaml", "", "empty"},
		{"a.txt", "x", "does not end in"},
		{"a.csv", "cloud-id,subscription\n", "names no stamp"},
		{"a.csv", "cloud-id,subscripton\n" + row, `unknown column "subscripton"`},
		{"a.csv", "cloud-id,cloud-id\n" + row, "twice"},
		{"a.csv", "cloud-id,subscription\n" + row + strings.ToUpper(row), "stamps 1 and 2"},
		{"a.csv", "agent,subscription\nx," + sub + "\nx," + sub + "\n", "stamps 1 and 2"},
		{"a.csv", "group,subscription\nx," + sub + "\n", "neither agent nor cloud-id"},
		{"a.csv", "cloud-id,subscription\n" + one + ",\n", "no subscription"},
		{"a.csv", "cloud-id,subscription\n" + one + ",Production\n", "Production"},
		{"a.csv", "cloud-id,subscription\n" + one + "\n", "wrong number of fields"},
		{"a.yaml", "stamps:\n- cloudid: x\n", "cloudid"},
		{"a.yaml", "stamps: []\n---\nstamps: []\n", "second document"},
		{"a.yaml", "stamps:\n- &a {cloud-id: " + one + "}\n- *a\n", "no subscription"},
		{"a.csv", strings.Repeat("x", MaxBytes+1), "more than"},
	} {
		_, err := Parse(test.name, []byte(test.text))
		if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), test.sentence) {
			t.Errorf("%.60q: %v, want %q", test.text, err, test.sentence)
		}
	}
}

func TestFindTakesTheRowOfTheStamp(t *testing.T) {
	f, err := Parse("f.csv", []byte("agent,cloud-id,subscription,name\nsite-a,"+one+","+sub+",both\nsite-b,,"+sub+",label\n,"+two+","+sub2+",cloud\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ agent, cloudID, want string }{
		{"site-a", strings.ToUpper(one), "both"},
		{"site-b", "other", "label"},
		{"site-b", two, "cloud"},
		{"site-b", one, ""}, // the stamp of site-a
		{"site-a", "other", ""},
		{"site-c", "", ""},
	} {
		s, err := f.Find(test.agent, test.cloudID)
		if s.Name != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s %s: row %q, %v; want row %q", test.agent, test.cloudID, s.Name, err, test.want)
		}
		if err != nil && fault.KindOf(err) != fault.NotForUs {
			t.Errorf("%s %s: %v", test.agent, test.cloudID, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.csv", []byte("cloud-id,subscription\n"+one+","+sub+"\n"))
	f.Add("a.yaml", []byte("stamps:\n- agent: x\n  subscription: "+sub+"\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		fl, err := Parse(name, data)
		if err != nil {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%v", err)
			}
			return
		}
		for _, s := range fl.Stamps {
			if got, err := fl.Find(s.Agent, s.CloudID); err != nil || got != s {
				t.Errorf("row %+v is not found: %+v %v", s, got, err)
			}
		}
	})
}
