//go:build unix

package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
)

// hostilestick fills the folder DIR with a good bundle and with everything that a
// hostile stick can hold, as far as its file system lets it; what it did not let
// in is logged. Sparse files cost nothing where the file system has them.
func hostilestick(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "hostilestick DIR GOOD")
	dir := ts.MkAbs(args[0])
	good, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, filepath.Base(args[1])), good, 0o600))

	outside := ts.MkAbs("outside.txt")
	ts.Check(os.WriteFile(outside, good, 0o600))
	put := func(name string, data []byte) func() error {
		return func() error { // a file system that folds case has the good one under that name already
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(data)
			return errors.Join(err, f.Close())
		}
	}
	link := func(to, name string) func() error {
		return func() error { return os.Symlink(to, filepath.Join(dir, name)) }
	}
	folder := func(name string) func() error {
		return func() error { return os.MkdirAll(filepath.Join(dir, name), 0o700) }
	}
	var refused []string
	for what, make := range map[string]func() error{
		"link out":         link(outside, "azs-request-aaaaaaaaaa.azc"),
		"link in":          link(filepath.Base(args[1]), "azs-request-bbbbbbbbbb.azc"),
		"link to itself":   link("azs-request-cccccccccc.azc", "azs-request-cccccccccc.azc"),
		"link to a device": link("/dev/zero", "azs-request-dddddddddd.azc"),
		"link to nowhere":  link("nowhere", "azs-request-eeeeeeeeee.azc"),
		"FIFO":             func() error { return syscall.Mkfifo(filepath.Join(dir, "azs-request-ffffffffff.azc"), 0o600) },
		"device": func() error {
			return syscall.Mknod(filepath.Join(dir, "azs-request-gggggggggg.azc"), syscall.S_IFCHR|0o600, 1<<8|5) // zero
		},
		"folder": folder("azs-request-hhhhhhhhhh.azc"),
		"2 GiB": func() error {
			if err := os.WriteFile(filepath.Join(dir, "azs-request-jjjjjjjjjj.azc"), nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, "azs-request-jjjjjjjjjj.azc"), 2<<30)
		},
		"empty":            put("azs-request-kkkkkkkkkk.azc", nil),
		"noise":            put("azs-request-mmmmmmmmmm.azc", []byte("\x1b[2J\x1b]0;owned\x07 azs-courier/v1 request\n")),
		"cut":              put("azs-request-nnnnnnnnnn.azc", good[:len(good)/2]),
		"escapes":          put("\x1b[31mred\x1b[0m\x07.azc", []byte("x")),
		"bidi":             put("azs-\u202ecza.tseuqer\u2066.azc", []byte("x")),
		"line feed":        put("a\nazs-relay: all is well\n.azc", []byte("x")),
		"no UTF-8":         put("\xff\xfe.azc", []byte("x")),
		"option":           put("--yes.azc", []byte("x")),
		"case clash":       put(strings.ToUpper(filepath.Base(args[1])), []byte("another")),
		"autorun":          put("autorun.inf", []byte("[autorun]\r\nopen=azs-relay.exe\r\n")),
		"shortcut":         put("azs-request.azc.lnk", []byte("L\x00\x00\x00")),
		"Mac's other half": put("._"+filepath.Base(args[1]), good),
		"bin":              folder(".Trash-1000"),
		"Windows":          folder("System Volume Information"),
		"admission":        put("azs-admitted.json", []byte(`{"good":true}`)),
	} {
		if err := make(); err != nil {
			refused = append(refused, what)
		}
	}
	ts.Logf("%s does not hold: %q", dir, refused)
}

// crowd puts so many files of no interest beside the others.
func crowd(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "crowd DIR N")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for i := range n {
		f, err := os.Create(filepath.Join(ts.MkAbs(args[0]), fmt.Sprintf("%06d.azc", i)))
		ts.Check(err)
		f.Close()
	}
}

// bounded runs a command that has a minute and 256 MiB. It ends with one of the
// codes, and nothing that it prints acts on a terminal.
func bounded(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "bounded CODE|CODE… COMMAND…")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], args[1])
	cmd := exec.CommandContext(ctx, path, args[2:]...)
	cmd.Dir, cmd.WaitDelay = ts.MkAbs("."), time.Second
	for _, name := range []string{"HOME", "PATH", "AZS_AGENT_HOME", "AZS_RELAY_HOME", "AZS_CLOUD", "AZS_AUTH", "AZS_ARM_ENDPOINT", "AZS_CA_FILE", "AZS_TENANT", "AZS_CLIENT_ID", "AZS_CLIENT_SECRET_FILE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.CombinedOutput()
	ts.Value(transcriptKey{}).(*transcript).Write(out)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		ts.Fatalf("%q: %v\n%q", args[1:], err, out)
	}
	ts.Logf("%q: code %d, %.0f MiB\n%s", args[1:], cmd.ProcessState.ExitCode(), maxRSS(cmd), out)
	if !strings.Contains("|"+args[0]+"|", fmt.Sprintf("|%d|", cmd.ProcessState.ExitCode())) {
		ts.Fatalf("exit code %d, want %s", cmd.ProcessState.ExitCode(), args[0])
	}
	if got := maxRSS(cmd); got > 256 {
		ts.Fatalf("it held %.0f MiB", got)
	}
	for i, r := range string(out) {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar) {
			ts.Fatalf("byte %d of what it prints acts on a terminal: %q", i, out[max(0, i-40):min(len(out), i+40)])
		}
	}
}

// each runs [bounded] for every entry of the folder DIR, whose path stands for {}.
func each(ts *testscript.TestScript, args []string) {
	need(ts, args, 3, "each DIR CODE|CODE… COMMAND…")
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		command := slices.Clone(args[1:])
		for i := range command {
			command[i] = strings.ReplaceAll(command[i], "{}", filepath.Join(ts.MkAbs(args[0]), e.Name()))
		}
		bounded(ts, command)
	}
}

// TestHostileSticks plays hostile-stick.txtar, which TestScripts plays in a plain
// folder, on file systems of their own: what sticks are sold with, by the kernel
// or through FUSE, and memory.
func TestHostileSticks(t *testing.T) {
	p := params(t)
	p.Dir, p.Files = "", []string{filepath.Join("..", "testdata", "script", "hostile-stick.txtar")}
	for _, kind := range []string{"tmpfs", "vfat", "exfat"} {
		t.Run(kind, func(t *testing.T) {
			p, setup := p, p.Setup
			dir := mountStick(t, kind)
			p.Setup = func(env *testscript.Env) error {
				env.Setenv("STICK", dir)
				return setup(env)
			}
			testscript.Run(t, p)
		})
	}
}

// mountStick gives a stick with a file system of its own, or skips the test.
func mountStick(t *testing.T, kind string) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) (string, error) {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("AZS_REQUIRE_FAT") == "1" && os.Geteuid() == 0 {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		out, err := exec.Command(name, args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	skip := func(out string, err error) {
		if err != nil {
			t.Skipf("this user or system cannot mount %s: %v: %s", kind, err, out)
		}
	}
	unmount := func() {
		if out, err := run("umount", "-l", dir); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}
	if kind == "tmpfs" {
		skip(run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir))
		t.Cleanup(unmount)
		return dir
	}
	image := filepath.Join(t.TempDir(), "stick.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 3<<30); err != nil {
		t.Skip(err)
	}
	skip(run("mkfs."+kind, image))
	systems, err := os.ReadFile("/proc/filesystems")
	if err == nil && strings.Contains(string(systems), "\t"+kind+"\n") {
		skip(run("mount", "-o", "loop", image, dir))
		t.Cleanup(unmount)
		return dir
	}
	// The kernel does not know it; FUSE may.
	if kind == "vfat" {
		skip(run("fusefat", "-o", "rw+", image, dir))
		t.Cleanup(unmount)
		return dir
	}
	device, err := run("losetup", "-f", "--show", image)
	skip(device, err)
	t.Cleanup(func() {
		if out, err := run("losetup", "-d", device); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	skip(run("mount.exfat-fuse", device, dir))
	t.Cleanup(unmount)
	return dir
}
