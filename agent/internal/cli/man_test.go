package cli

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/appkit"
)

var update = flag.Bool("update", false, "write docs/man anew")

// The page under docs/man is what the man verb prints, and mandoc finds nothing
// in it but that it has no date, which is so on purpose.
func TestManPage(t *testing.T) {
	const file = "../../../docs/man/azs-agent.1"
	got := appkit.Man(program())
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/man is not what man prints; go test -run TestManPage -update (-file +man):\n%s", diff)
	}

	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_MANDOC") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no mandoc to read the page: %v", err)
	}
	out, _ := exec.Command(mandoc, "-T", "lint", file).CombinedOutput() // its exit code tells of the date too
	dates := 0
	for l := range strings.Lines(string(out)) {
		if strings.Contains(l, "missing date") {
			dates++
			continue
		}
		t.Error(strings.TrimSpace(l))
	}
	if dates != 1 {
		t.Errorf("mandoc spoke %d times of the date, so it has not read the page: %q", dates, out)
	}
}
