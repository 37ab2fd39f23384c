package main_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// TestScripts runs the trips of ../testdata/script: both real programs, a real
// azuretest, a real peptest, folders as sticks. Every script names the threat that it guards.
//
// The programs come from ../bin, or from the folder that AZS_BIN names. Where
// they are not built the test is skipped, unless AZS_REQUIRE_BIN is 1.
//
// Besides the commands of testscript(1) a script has:
//
//	azure [flags]               start azuretest; sets the AZS_… variables, SUB and CONTROL
//	stamp [flags]               start peptest; sets AZS_PEP, AZS_PEP_USER, AZS_PEP_PASSWORD_FILE,
//	                            CLOUDID, PEPCONTROL, and PEPTEST_CONTROL for peptest ctl
//	postgres                    start PostgreSQL with an empty database that AZS_RELAY_STATE names; where
//	                            none is installed, the condition [postgres] is false
//	sshagent, skagent           start an ssh-agent, empty or with the security key "token"; sets SSH_AUTH_SOCK.
//	                            The condition [ssh] is false where OpenSSH is not installed
//	recoverykey                 make recovery.key and recovery.pub; sets AGE. The condition [age] is false where
//	                            AZS_AGE names no age program (make unit does)
//	ageplugin                   build a real age plugin and a hostile one in PATH, see ageplugin
//	activating N                wait until N activations were begun on the stamp
//	stations AGENT…             make the relay "relay-one" in $WORK/relay and the
//	                            agents in $WORK/AGENT, pair each with the relay, and
//	                            let AZS_RELAY_HOME and AZS_AGENT_HOME (the first) name them
//	exitcode N COMMAND…         run a command that must end with exactly this code
//	json PATH VALUE             compare a value in the JSON of standard output
//	jsonenv NAME PATH           set a variable from such a value
//	lineenv NAME                set a variable from the one line of standard output
//	one NAME PATTERN            set a variable to the one file of the pattern
//	none PATTERN                there is no file of the pattern
//	calls N PATTERN             so many lines "METHOD PATH STATUS" of azuretest's log match
//	alter HOW FILE TO           copy a file with damage: flip=OFFSET, cut=LENGTH,
//	                            append=TEXT, sub=OLD=NEW (once), upper=, twice=, quote=
//	sweep N HOW STEP FILE COMMAND…  run the command for a copy {} of the file that is
//	                            damaged at every STEP-th byte; each must end with code N
//	snapshot DIR FILE           write the names and digests of a folder's files to FILE
//	hides BUNDLE WORD…          no section of the bundle, decoded or not, holds a word
//	killsweep LEAST HOME OUT AGAIN COMMAND…       kill a command at every one of its writes, see killsweep
//	disksweep LEAST HOME OUT AGAIN COMMAND…       the same with a disk that is full, read-only or broken from then on
//	mkfifo FILE                 make a FIFO
//	hostilestick DIR GOOD       fill a folder with what a hostile stick can hold, and the good bundle
//	crowd DIR N                 put N files more into a folder
//	bounded N|N… COMMAND…       run a command in a minute and 256 MiB, see bounded
//	each DIR N|N… COMMAND…      the same for each entry {} of the folder
//	cut BUNDLE VERSION          set K, N, HALF, REST, TWICE and ID of its optical frames
//	wedge BUNDLE VERSION FROM TO FILE     the lines that a handheld scanner types
//	pictures BUNDLE VERSION FROM TO DIR   a PNG a frame
//	recipe HOME PROGRAM TRIP N  do what a page of evidence says, see recipe
//	printed FILE LEAST MOST WORD…         open a page in Chromium and print it, see printed
//	forge FILE TO FIELD=VALUE…  what a hacked relay could send, see forge
//	canaries                    search every file, and every command line of the machine, for the secrets
//	stampfaults COMMAND…        run a command once for each fault of peptest
//
// Whatever stands in $WORK/secret is a secret: when the script has ended, no
// output and no state folder may hold a piece of it (see secrets).
func TestScripts(t *testing.T) {
	testscript.Run(t, params(t))
}

// params is how every script is run. The folder STICK is the script's own.
func params(t *testing.T) testscript.Params {
	t.Helper()
	bin := binaries(t)
	return testscript.Params{
		Dir:                filepath.Join("..", "testdata", "script"),
		RequireUniqueNames: true,
		Condition:          condition,
		Setup: func(env *testscript.Env) error {
			if env.Getenv("STICK") == "" {
				env.Setenv("STICK", filepath.Join(env.WorkDir, "stick"))
				if err := os.Mkdir(env.Getenv("STICK"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
					return err
				}
			}
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			if err := os.Mkdir(filepath.Join(env.WorkDir, "secret"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			out := new(transcript)
			env.Values[transcriptKey{}] = out
			env.Values[testKey{}] = env.T()
			env.Defer(func() { noSecrets(env.T().(testing.TB), env.WorkDir, out) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"azure": positive(azure), "postgres": positive(postgres), "stamp": positive(stamp), "activating": positive(activating), "stations": positive(stations), "exitcode": positive(exitcode), "json": jsonIs, "jsonenv": positive(jsonenv),
			"lineenv": positive(lineenv), "one": positive(one), "none": positive(none), "calls": positive(calls), "cut": positive(cut), "wedge": positive(wedge), "pictures": positive(pictures), "alter": positive(alter),
			"sweep": positive(sweep), "mkfifo": positive(mkfifo), "snapshot": positive(snapshot), "hides": positive(hides), "killsweep": positive(killsweep), "disksweep": positive(disksweep), "forge": positive(forge),
			"hostilestick": positive(hostilestick), "crowd": positive(crowd), "bounded": positive(bounded), "each": positive(each), "recipe": positive(recipe), "printed": positive(printed),
			"sshagent": positive(sshagent), "skagent": positive(skagent), "recoverykey": positive(recoverykey), "ageplugin": positive(ageplugin),
			"canaries": positive(canaries), "stampfaults": positive(stampfaults),
		},
	}
}

// binaries returns the folder of the four programs.
func binaries(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("AZS_BIN")
	if dir == "" {
		dir = filepath.Join("..", "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"azs-agent", "azs-relay", "azuretest", "peptest"} {
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			if os.Getenv("AZS_REQUIRE_BIN") == "1" {
				t.Fatalf("the scripts need the programs: %v", err)
			}
			t.Skipf("the scripts need the programs (make build): %v", err)
		}
	}
	return dir
}

type (
	testKey       struct{} // the testing.TB of the script
	transcriptKey struct{}
	// transcript is everything that the programs of one script printed.
	transcript struct {
		bytes.Buffer
		everywhere bool // every file of the script is searched for secrets, see canaries
	}
)

// positive refuses the prefix ! for a command that has no opposite.
func positive(f func(*testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command has no opposite")
		}
		f(ts, args)
	}
}

// need checks how many arguments a command got.
func need(ts *testscript.TestScript, args []string, n int, usage string) {
	if len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

// run runs a command and returns its exit code; what it prints is the last
// output, and part of the transcript. What it prints with --json fits the schema.
func run(ts *testscript.TestScript, args ...string) int {
	err := ts.Exec(args[0], args[1:]...)
	out := ts.Value(transcriptKey{}).(*transcript)
	fmt.Fprintf(out, "%s\n%s\n", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %v", args[0], err)
	}
	checkEnvelope(ts, args, code)
	return code
}

func exitcode(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "exitcode N COMMAND…")
	if got := run(ts, args[1:]...); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// serve starts a program that prints one line of JSON and serves until the
// script's end, and reads that line into line.
func serve(ts *testscript.TestScript, line any, program string, args ...string) {
	path, err := exec.LookPath(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], program))
	ts.Check(err)
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		if cmd.Process.Signal(os.Interrupt) != nil {
			_ = cmd.Process.Kill() // Windows has no interrupt for another process
		}
		_ = cmd.Wait()
	})
	first, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		ts.Fatalf("%s gave no line: %v: %s", program, err, stderr.String())
	}
	ts.Check(json.Unmarshal(first, line))
}

// canary makes the content of a file a secret of the script.
func canary(ts *testscript.TestScript, file, name string) {
	hidden, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("secret/"+name), hidden, 0o600))
}

// azure starts azuretest.
func azure(ts *testscript.TestScript, args []string) {
	var line map[string]string
	serve(ts, &line, "azuretest", append([]string{"--dir", ts.MkAbs("azure")}, args...)...)
	for name, value := range map[string]string{
		"AZS_CLOUD": "custom", "AZS_AUTH": "client-secret", "AZS_ARM_ENDPOINT": line["arm"], "AZS_CA_FILE": line["caFile"],
		"AZS_TENANT": line["tenant"], "AZS_CLIENT_ID": line["clientId"], "AZS_CLIENT_SECRET_FILE": line["clientSecretFile"],
		"SUB": line["subscription"], "CONTROL": line["control"], "CLIENT_CERTIFICATE": line["clientCertificateFile"],
	} {
		ts.Setenv(name, value)
	}
	canary(ts, line["clientSecretFile"], "client-secret")
}

// stamp starts peptest. A second one takes the place of the first in the
// environment.
func stamp(ts *testscript.TestScript, args []string) {
	dir, err := os.MkdirTemp(ts.MkAbs("."), "stamp-")
	ts.Check(err)
	var line struct {
		Addresses                            []string
		User, PasswordFile, CloudID, Control string
	}
	serve(ts, &line, "peptest", append([]string{"--dir", dir}, args...)...)
	for name, value := range map[string]string{
		"AZS_PEP": strings.Join(line.Addresses, ","), "AZS_PEP_USER": line.User, "AZS_PEP_PASSWORD_FILE": line.PasswordFile,
		"CLOUDID": line.CloudID, "PEPCONTROL": line.Control, "PEPTEST_CONTROL": line.Control,
	} {
		ts.Setenv(name, value)
	}
	canary(ts, line.PasswordFile, filepath.Base(dir))
}

// activating waits for what peptest's log cannot tell.
func activating(ts *testscript.TestScript, args []string) {
	need(ts, args, 1, "activating N")
	path := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "peptest")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		out, err := exec.Command(path, "ctl", "state", "--control", ts.Getenv("PEPCONTROL")).Output()
		ts.Check(err)
		var state struct{ Activations int }
		ts.Check(json.Unmarshal(out, &state))
		if strconv.Itoa(state.Activations) == args[0] {
			return
		}
	}
	ts.Fatalf("%s activations were not begun in time", args[0])
}

// stations makes a relay and agents that are paired with it. Everything is done
// by the programs; only the words are carried by hand.
func stations(ts *testscript.TestScript, agents []string) {
	need(ts, agents, 1, "stations AGENT…")
	must := func(args ...string) string {
		if code := run(ts, args...); code != 0 {
			ts.Fatalf("%s: exit code %d", strings.Join(args, " "), code)
		}
		return strings.TrimSpace(ts.ReadFile("stdout"))
	}
	relay := ts.MkAbs("relay")
	card := ts.MkAbs("relay-one.card")
	ts.Setenv("AZS_RELAY_HOME", relay)
	must("azs-relay", "init", "--label", "relay-one", "--insecure-no-passphrase")
	must("azs-relay", "card", "--out", card)
	for _, label := range agents {
		home, own := ts.MkAbs(label), ts.MkAbs(label+".card")
		must("azs-agent", "--home", home, "init", "--label", label, "--insecure-no-passphrase")
		must("azs-agent", "--home", home, "card", "--out", own)
		must("azs-agent", "--home", home, "pair", card, "--expect-words", must("azs-relay", "words", own))
		must("azs-relay", "pair", own, "--expect-words", must("azs-agent", "--home", home, "words", card))
	}
	ts.Setenv("AZS_AGENT_HOME", ts.MkAbs(agents[0]))
}

// value finds a value in standard output: "requests.0.answer" in the last line
// of JSON that has "requests"; "requests.len" is how many there are. Objects, lists
// and numbers are spelt as JSON, a string as it is.
func value(ts *testscript.TestScript, path string) string {
	var at any
	first, _, _ := strings.Cut(path, ".")
	for _, line := range strings.Split(ts.ReadFile("stdout"), "\n") {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.UseNumber()
		var object map[string]any
		if dec.Decode(&object) == nil && object[first] != nil {
			at = object
		}
	}
	if at == nil {
		ts.Fatalf("standard output has no line of JSON with a value for %q", first)
	}
	for _, step := range strings.Split(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[step]
			if !ok {
				ts.Fatalf("%s: there is no %q", path, step)
			}
			at = next
		case []any:
			if step == "len" {
				return strconv.Itoa(len(v))
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				ts.Fatalf("%s: %q is none of %d", path, step, len(v))
			}
			at = v[i]
		default:
			ts.Fatalf("%s: %q is in no object", path, step)
		}
	}
	if s, ok := at.(string); ok {
		return s
	}
	text, err := json.Marshal(at)
	ts.Check(err)
	return string(text)
}

func jsonIs(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] json PATH VALUE")
	if got := value(ts, args[0]); (got == args[1]) == neg {
		ts.Fatalf("%s is %q, want %q (opposite: %v)", args[0], got, args[1], neg)
	}
}

func jsonenv(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "jsonenv NAME PATH")
	ts.Setenv(args[0], value(ts, args[1]))
}

func lineenv(ts *testscript.TestScript, args []string) {
	need(ts, args, 1, "lineenv NAME")
	line := strings.TrimSpace(ts.ReadFile("stdout"))
	if line == "" || strings.Contains(line, "\n") {
		ts.Fatalf("standard output is not one line: %q", line)
	}
	ts.Setenv(args[0], line)
}

func found(ts *testscript.TestScript, pattern string) []string {
	all, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	return all
}

func one(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "one NAME PATTERN")
	all := found(ts, args[1])
	if len(all) != 1 {
		ts.Fatalf("%d files are of the pattern %s: %q", len(all), args[1], all)
	}
	ts.Setenv(args[0], all[0])
}

func none(ts *testscript.TestScript, args []string) {
	need(ts, args, 1, "none PATTERN")
	if all := found(ts, args[0]); len(all) != 0 {
		ts.Fatalf("there are files of the pattern %s: %q", args[0], all)
	}
}

// calls counts in azuretest's log, without touching the last output of the
// programs.
func calls(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "calls N PATTERN")
	re, err := regexp.Compile("(?i)" + args[1])
	ts.Check(err)
	path := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "azuretest")
	log, err := exec.Command(path, "ctl", "log", "--lines", "--control", ts.Getenv("CONTROL")).Output()
	ts.Check(err)
	n := 0
	for _, line := range strings.Split(strings.TrimSpace(string(log)), "\n") {
		if re.MatchString(line) {
			n++
		}
	}
	if strconv.Itoa(n) != args[0] {
		ts.Fatalf("%d calls match %s, want %s:\n%s", n, args[1], args[0], log)
	}
}

// damaged returns a copy of data with damage.
func damaged(ts *testscript.TestScript, how string, data []byte) []byte {
	data = bytes.Clone(data)
	what, arg, _ := strings.Cut(how, "=")
	at, err := strconv.Atoi(arg)
	switch {
	case what == "append":
		return append(data, arg...)
	case what == "sub":
		before, after, ok := strings.Cut(arg, "=")
		if !ok || bytes.Count(data, []byte(before)) == 0 {
			ts.Fatalf("%s: the file does not hold that", how)
		}
		return bytes.Replace(data, []byte(before), []byte(after), 1)
	case what == "upper":
		return bytes.ToUpper(data)
	case what == "twice":
		return append(data, data...)
	case what == "quote": // as pasted out of a document
		return fmt.Appendf(nil, "\r\n \u00a0\"%s\u00a0\"  \r\n\r\n", bytes.TrimSpace(data))
	case err != nil || at < 0 || at >= len(data):
		ts.Fatalf("%s: the file has %d bytes", how, len(data))
	case what == "flip":
		if c := data[at]; c != 'A' && bytes.IndexByte([]byte(base64Letters), c) >= 0 {
			data[at] = 'A' // stays what an armour can hold
		} else {
			data[at] ^= 3
		}
	case what == "cut":
		data = data[:at]
	default:
		ts.Fatalf("%s is no damage", how)
	}
	return data
}

const base64Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func alter(ts *testscript.TestScript, args []string) {
	need(ts, args, 3, "alter HOW FILE TO")
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), damaged(ts, args[0], []byte(ts.ReadFile(args[1]))), 0o600))
}

func sweep(ts *testscript.TestScript, args []string) {
	need(ts, args, 5, "sweep N HOW STEP FILE COMMAND…")
	step, err := strconv.Atoi(args[2])
	ts.Check(err)
	data := []byte(ts.ReadFile(args[3]))
	copied := ts.MkAbs("sweep.azc")
	command := args[4:]
	for i, a := range command {
		command[i] = strings.ReplaceAll(a, "{}", copied)
	}
	for at := 0; at < len(data); at += step {
		if args[1] == "cut" && at == 0 {
			continue // an empty file is a matter of the medium
		}
		ts.Check(os.WriteFile(copied, damaged(ts, fmt.Sprintf("%s=%d", args[1], at), data), 0o600))
		if got := run(ts, command...); strconv.Itoa(got) != args[0] {
			ts.Fatalf("%s at byte %d of %d: exit code %d, want %s", args[1], at, len(data), got, args[0])
		}
	}
	ts.Check(os.Remove(copied))
}

// snapshot leaves out the lock: who reads may make it.
func snapshot(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "snapshot DIR FILE")
	root := ts.MkAbs(args[0])
	var list strings.Builder
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&list, "%s %x\n", strings.TrimPrefix(path, root), sha256.Sum256(data))
		return err
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(list.String()), 0o600))
}

// hides looks at both spellings, for the sections of the text are base64 and
// those of the wire form are not.
func hides(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "hides BUNDLE WORD…")
	b, err := bundle.Split([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	for _, spelling := range [][]byte{b.Text(), b.Wire()} {
		for _, word := range args[1:] {
			if bytes.Contains(bytes.ToLower(spelling), bytes.ToLower([]byte(word))) {
				ts.Fatalf("the outside of %s holds %q", args[0], word)
			}
		}
	}
}

// open unlocks the identity of a state folder that has no passphrase.
func open(ts *testscript.TestScript, home string) (*trust.Identity, []trust.Peer) {
	store := trust.At(home)
	id, err := store.Unlock(nil)
	ts.Check(err)
	peers, err := store.Peers()
	ts.Check(err)
	return id, peers
}
