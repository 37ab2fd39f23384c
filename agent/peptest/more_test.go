package peptest_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/peptest"
)

// The log tells the cmdlet of each exchange of a command, and the code of a Signal.
func TestLogTellsCmdletAndSignal(t *testing.T) {
	srv := start(t)
	pool := open(t, newClient(t, srv, srv.Password))
	if _, err := pool.Run(t.Context(), cmd("Set-RegistrationKeyPair"), psrp.Handlers{}); err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, r := range srv.Requests() {
		if r.Command != "" {
			told[r.Action] = r.Cmdlet + " " + r.Signal
		} else if r.Cmdlet != "" || r.Signal != "" {
			t.Errorf("%+v", r)
		}
	}
	for action, want := range map[string]string{"Command": "Set-RegistrationKeyPair ", "Receive": "Set-RegistrationKeyPair ",
		"Signal": "Set-RegistrationKeyPair " + psrp.SignalTerminate} {
		if told[action] != want {
			t.Errorf("%s is told as %q, want %q", action, told[action], want)
		}
	}
}

// An activation of hours ends when the test says so.
func TestFinishEndsTheTimeOfAnAction(t *testing.T) {
	srv := start(t, peptest.WithActivation(10*time.Hour))
	pool := open(t, newClient(t, srv, srv.Password))
	if srv.Stamp().Action != "" {
		t.Error("an action runs")
	}
	_, err := pool.Run(t.Context(), cmd("New-AzureStackActivation", psrp.Param("ActivationKey", key(t, srv.CloudID))), psrp.Handlers{
		Progress: func(psrp.Progress) { srv.Finish() },
	})
	if st := srv.Stamp(); err != nil || !st.Activated || st.Action != "" {
		t.Errorf("%v, %+v", err, st)
	}
	if srv.Finish() {
		t.Error("an action runs still")
	}
}

// A dropped connection comes after a whole reply.
func TestDropIdleSendsTheWholeReply(t *testing.T) {
	srv := start(t)
	srv.Fail(peptest.Fault{Kind: peptest.DropIdle, Times: 1})
	for range 2 {
		web := &http.Client{Transport: &http.Transport{}} // with a connection of its own
		res, err := web.Post("http://"+srv.Addresses[0]+"/wsman", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 401 || res.Close {
			t.Errorf("%v, status %d, close %t", err, res.StatusCode, res.Close)
		}
		res.Body.Close()
		web.CloseIdleConnections()
	}
}

// The ways in which fragments lie hold the same bytes.
func TestStreams(t *testing.T) {
	var all [][]byte
	for _, how := range []peptest.Streams{peptest.OneFragment, peptest.AllFragments, peptest.SplitFragments} {
		srv := start(t, peptest.WithStreams(how), peptest.WithCloudID("11111111-2222-4333-8444-555555555555"))
		c := newClient(t, srv, srv.Password)
		open(t, c)
		id := guid(t)
		pid, _ := psrp.ParseGUID(id)
		shell, _ := psrp.ParseGUID(c.shell)
		splitter := psrp.Fragmenter{Last: 2}
		if err := c.Command(t.Context(), id, splitter.Split(psrp.NewCreatePipeline(shell, pid, cmd("Get-AzureStackStampInformation")).Encode())[0]); err != nil {
			t.Fatal(err)
		}
		streams, _, err := c.receive(id, "")
		want := map[peptest.Streams]int{peptest.OneFragment: 2, peptest.AllFragments: 1, peptest.SplitFragments: 4}[how]
		if err != nil || len(streams) != want {
			t.Errorf("%s: %d Streams, want %d, %v", how, len(streams), want, err)
		}
		all = append(all, bytes.Join(streams, nil))
		var d psrp.Defragmenter
		if messages, err := d.Write(all[len(all)-1]); err != nil || len(messages) != 2 {
			t.Errorf("%s: %d messages, %v", how, len(messages), err)
		}
	}
	if slices.ContainsFunc(all, func(b []byte) bool { return len(b) == 0 }) {
		t.Error("nothing came")
	}
	if _, err := peptest.Start("127.0.0.1:0", peptest.WithStreams("x")); err == nil || !strings.Contains(err.Error(), `streams "x"`) {
		t.Errorf("%v", err)
	}
	if _, err := peptest.Start("127.0.0.1:0", peptest.WithDeploymentID("x")); err == nil || !strings.Contains(err.Error(), "deployment id") {
		t.Errorf("%v", err)
	}
}

// What is refused names the fault and leaves no shell.
func TestAnOptionThatMustBeCompliedWith(t *testing.T) {
	srv := start(t)
	c := newClient(t, srv, srv.Password)
	_, err := c.post(transfer+"Create", `<w:OptionSet s:mustUnderstand="true"><w:Option MustComply="true" Name="dance">1</w:Option></w:OptionSet>`, "", "")
	if err == nil || !strings.Contains(err.Error(), `"dance" is not known`) || srv.Stamp().Shells != 0 {
		t.Errorf("%v, %+v", err, srv.Stamp())
	}
	_, err = c.post(transfer+"Create", `<w:OptionSet s:mustUnderstand="true"><w:Option Name="protocolversion">2.3</w:Option></w:OptionSet>`,
		`<rsp:Shell ShellId="`+guid(t)+`"><rsp:InputStreams>stdin pr</rsp:InputStreams></rsp:Shell>`, "")
	if err == nil || !strings.Contains(err.Error(), "MustComply") {
		t.Errorf("%v", err)
	}
}
