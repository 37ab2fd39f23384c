package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// TestCeremonyDocument types what docs/CEREMONY.md tells two operators to type,
// section by section, and lets every command end well. What a person is asked for
// at the terminal comes by --expect-words from the other side instead.
func TestCeremonyDocument(t *testing.T) {
	bin := programs(t)
	doc, err := os.ReadFile(filepath.Join("..", "docs", "CEREMONY.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string][]string{}
	for _, section := range strings.Split(string(doc), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		for _, line := range regexp.MustCompile(`(?m)^(?:inside|outside)\$ (.*)$`).FindAllStringSubmatch(text, -1) {
			sections[title] = append(sections[title], line[1])
		}
	}
	const both = "Both cards first"
	for _, order := range [][]string{
		{both, "For the kiosk", "A lost stick", "Revocation"},
		{both, "A lost state folder"},
		{both, "Changing the keys"},
		{"The agent's card in its first request"},
		{"In a script"},
	} {
		t.Run(order[len(order)-1], func(t *testing.T) {
			c := newCeremony(t, bin)
			for _, title := range order {
				if len(sections[title]) == 0 {
					t.Fatalf("the document has no commands under %q", title)
				}
				if title == "A lost stick" {
					c.enter(t, "azs-agent token --token-file RegistrationToken.txt --out lost.azc")
				}
				for _, line := range sections[title] {
					c.enter(t, line)
				}
			}
		})
	}
	for title := range sections {
		switch title {
		case both, "For the kiosk", "A lost stick", "Revocation", "A lost state folder", "Changing the keys", "The agent's card in its first request", "In a script":
		default:
			t.Errorf("the commands under %q are typed by no test", title)
		}
	}
}

// programs finds the two programs as TestScripts does.
func programs(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("AZS_BIN")
	if dir == "" {
		dir = filepath.Join("..", "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"azs-agent", "azs-relay"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			if os.Getenv("AZS_REQUIRE_BIN") == "1" {
				t.Fatalf("the programs are not built: %v", err)
			}
			t.Skipf("the programs are not built (make build): %v", err)
		}
	}
	return dir
}

// ceremony is a desk at which both operators type.
type ceremony struct {
	bin, dir string
	env      []string
}

func newCeremony(t *testing.T, bin string) *ceremony {
	t.Helper()
	c := &ceremony{bin: bin, dir: t.TempDir()}
	token := officialtest.Token(officialtest.Spec{Seed: 1})
	if err := os.WriteFile(filepath.Join(c.dir, "RegistrationToken.txt"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c.env = append(os.Environ(), "AZS_PASSPHRASE_FILE=",
		"AZS_AGENT_HOME="+filepath.Join(c.dir, "agent"), "AZS_RELAY_HOME="+filepath.Join(c.dir, "relay"))
	return c
}

// run runs a command and returns its standard output.
func (c *ceremony) run(t *testing.T, words ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, words[0]), words[1:]...)
	cmd.Dir, cmd.Env = c.dir, c.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v: %s", words, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// enter runs a line of the document, with what the other operator reads out.
func (c *ceremony) enter(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	for i, w := range words {
		switch w {
		case `"WORDS"`:
			words[i] = c.run(t, "azs-agent", "words", "relay-1.azc")
		case "ID":
			words[i] = strings.Fields(c.run(t, "azs-agent", "requests"))[0]
		}
	}
	if strings.Contains(line, " init ") {
		words = append(words, "--insecure-no-passphrase") // a passphrase costs a second each time
	}
	asks := strings.Contains(line, " pair ") && !strings.Contains(line, "--expect-words") && regexp.MustCompile(`\.azc\b`).MatchString(line)
	if asks {
		spoken := []string{"azs-agent", "words", "relay-1.azc"}
		switch {
		case strings.Contains(line, "--card-words"):
			spoken = []string{"azs-relay", "words"}
		case strings.Contains(line, "new-site-a.azc"), strings.Contains(line, "--home NEW"):
			spoken = []string{"azs-agent", "--home", "NEW", "words", "relay-1.azc"}
		}
		words = append(words, "--expect-words", c.run(t, spoken...))
	}
	c.run(t, words...)
}
