package azure

import (
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const testSub = "dd8597b4-8739-4467-8b10-f8679f62bfbf"

func mustID(t testing.TB, group, name string) RegistrationID {
	t.Helper()
	s, err := ParseSubscriptionID(testSub)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Group(group)
	if err != nil {
		t.Fatal(err)
	}
	id, err := g.Registration(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNamesThatResourceManagerTakes(t *testing.T) {
	sub, err := ParseSubscriptionID(strings.ToUpper(testSub))
	if err != nil || sub.String() != testSub {
		t.Fatalf("ParseSubscriptionID = %v, %v", sub, err)
	}
	for _, bad := range []string{"", "x", testSub + "/", "../" + testSub, strings.Replace(testSub, "d", "g", 1), " " + testSub} {
		if _, err := ParseSubscriptionID(bad); fault.KindOf(err) != fault.Usage {
			t.Errorf("ParseSubscriptionID(%q) = %v", bad, err)
		}
	}
	for _, good := range []string{"azurestack", "rg-1_(x).y", "gruppe-ä", strings.Repeat("a", 90)} {
		if _, err := sub.Group(good); err != nil {
			t.Errorf("Group(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a.", "a/b", "a b", "a?b", "a%2fb", "a\nb", "a\n", strings.Repeat("a", 91)} {
		if _, err := sub.Group(bad); fault.KindOf(err) != fault.Usage {
			t.Errorf("Group(%q) = %v", bad, err)
		}
	}
	g, _ := sub.Group("azurestack")
	for _, good := range []string{"AzureStack-" + testSub, "a b", "régistration", "a.b", "(x)"} {
		if _, err := g.Registration(good); err != nil {
			t.Errorf("Registration(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", `a\b`, "a?b", "a#b", "a%2fb", "a\x00", "a\n", " a", "a ", "a.", "a\xff", strings.Repeat("a", 261)} {
		if _, err := g.Registration(bad); fault.KindOf(err) != fault.Usage {
			t.Errorf("Registration(%q) = %v", bad, err)
		}
	}
}

func TestParseRegistrationID(t *testing.T) {
	want := mustID(t, "azurestack", "testregistration")
	id, err := ParseRegistrationID(strings.ToUpper(want.String()))
	if err != nil || !id.Same(want) {
		t.Fatalf("ParseRegistrationID = %v, %v", id, err)
	}
	if id, err := ParseRegistrationID(want.String()); err != nil || id != want {
		t.Fatalf("ParseRegistrationID(String()) = %v, %v", id, err)
	}
	for _, bad := range []string{"", want.String() + "/", want.String() + "/x", "x" + want.String(),
		strings.Replace(want.String(), "AzureStack", "Azure", 1), strings.Replace(want.String(), testSub, "x", 1),
		strings.Replace(want.String(), "azurestack", "..", 1), want.String() + "?x"} {
		if id, err := ParseRegistrationID(bad); fault.KindOf(err) != fault.Refused {
			t.Errorf("ParseRegistrationID(%q) = %v, %v", bad, id, err)
		}
	}
}
