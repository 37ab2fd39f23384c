package peptest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/peptest"
)

func code(err error) uint64 {
	var f *wsFault
	if errors.As(err, &f) {
		return f.code
	}
	return 0
}

func TestBodyInClearIsRefused(t *testing.T) {
	srv := start(t)
	res, err := http.Post("http://"+srv.Addresses[0]+"/wsman", "application/soap+xml;charset=UTF-8", strings.NewReader("<Envelope/>"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") != "Negotiate" {
		t.Errorf("%s, %q", res.Status, res.Header)
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	srv := start(t)
	c := newClient(t, srv, srv.Password+"x")
	if err := c.Create(t.Context(), guid(t), nil); err == nil {
		t.Fatal("a shell was made")
	}
	refused := false
	for _, r := range srv.Requests() {
		refused = refused || r.Action == "Authenticate" && r.Status == http.StatusUnauthorized && strings.Contains(r.Note, "wrong user name or password")
		if r.Status == http.StatusOK {
			t.Errorf("%+v", r)
		}
	}
	if !refused {
		t.Errorf("no refusal in %+v", srv.Requests())
	}
}

// An activation that is under way refuses another one, also in another session,
// and goes on when its pipeline is stopped and its shell deleted.
func TestActionGoesOnWithoutItsSession(t *testing.T) {
	srv := start(t)
	srv.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: "New-AzureStackActivation", Times: 1})
	activate := cmd("New-AzureStackActivation", psrp.Param("ActivationKey", key(t, srv.CloudID)))
	c := newClient(t, srv, srv.Password)
	c.timeout = "PT0.1S" // the library cannot signal beside a waiting Receive
	first, second := open(t, c), open(t, newClient(t, srv, srv.Password))
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := first.Run(ctx, activate, psrp.Handlers{Progress: func(psrp.Progress) { cancel(errors.New("Ctrl-C")) }})
	var stopped *psrp.Stopped
	if !errors.As(err, &stopped) {
		t.Fatalf("%v, want it stopped", err)
	}
	id := srv.Stamp().Action
	if id == "" {
		t.Fatal("no action runs")
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	want := strings.Replace(peptest.TextBusy, "%s", id, 1)
	if _, err := second.Run(t.Context(), activate, psrp.Handlers{}); remote(err) != want {
		t.Errorf("%v, want %q", err, want)
	}
	if srv.Stamp().Activated {
		t.Error("activated before the action ended")
	}
	if n := srv.Release(); n != 1 {
		t.Errorf("%d released", n)
	}
	// Runs only after the action has ended, by asking until it is not refused.
	for {
		_, err := second.Run(t.Context(), cmd("Remove-AzureStackActivation"), psrp.Handlers{})
		if err == nil {
			break
		}
		if remote(err) != want {
			t.Fatal(err)
		}
	}
	if st := srv.Stamp(); st.Activations != 1 || st.Deactivations != 1 || st.Activated {
		t.Errorf("%+v", st)
	}
}

func TestReceiveTimesOutAndRepeats(t *testing.T) {
	srv := start(t)
	c := newClient(t, srv, srv.Password)
	pool := open(t, c)
	c.timeout = "PT0.05S"
	if _, _, err := c.receive("", ""); code(err) != 2150858793 {
		t.Errorf("receive without data: %v", err)
	}
	c.timeout = "PT60S"
	id := guid(t)
	pid, _ := psrp.ParseGUID(id)
	splitter := psrp.Fragmenter{Last: 2}
	if err := c.Command(t.Context(), id, splitter.Split(psrp.NewCreatePipeline(pool.ID(), pid, cmd("Get-AzureStackStampInformation")).Encode())[0]); err != nil {
		t.Fatal(err)
	}
	first, done, err := c.receive(id, "")
	if err != nil || !done || len(first) != 2 {
		t.Fatalf("%d streams, done %t, %v", len(first), done, err)
	}
	again, done, err := c.receive(id, c.lastID)
	if err != nil || !done || len(again) != len(first) || !bytes.Equal(bytes.Join(again, nil), bytes.Join(first, nil)) {
		t.Errorf("the same message has %d streams, done %t, %v", len(again), done, err)
	}
	if other, done, err := c.receive(id, ""); err != nil || !done || len(other) != 0 {
		t.Errorf("another message has %d streams, done %t, %v", len(other), done, err)
	}
	if err := c.Signal(t.Context(), id, psrp.SignalTerminate); err != nil {
		t.Error(err)
	}
	if _, _, err := c.receive(id, ""); code(err) != 2150858843 {
		t.Errorf("receive of a terminated command: %v", err)
	}
}

func TestQuotas(t *testing.T) {
	srv := start(t, peptest.WithQuota(1, 1))
	c := newClient(t, srv, srv.Password)
	pool := open(t, c)
	if err := newClient(t, srv, srv.Password).Create(t.Context(), guid(t), nil); code(err) != 2150859173 {
		t.Errorf("second shell: %v", err)
	}
	splitter := psrp.Fragmenter{Last: 2}
	var errs []error
	for range 2 {
		id := guid(t)
		pid, _ := psrp.ParseGUID(id)
		errs = append(errs, c.Command(t.Context(), id, splitter.Split(psrp.NewCreatePipeline(pool.ID(), pid, cmd("X")).Encode())[0]))
	}
	if errs[0] != nil || code(errs[1]) != 2150859174 {
		t.Errorf("commands: %v", errs)
	}
}

func TestIdleShellsGo(t *testing.T) {
	now := make(chan time.Time, 1)
	now <- time.Unix(1_800_000_000, 0)
	clock := func() time.Time { t := <-now; now <- t; return t }
	srv := start(t, peptest.WithNow(clock))
	c := newClient(t, srv, srv.Password)
	open(t, c)
	at := <-now
	now <- at.Add(2*time.Hour + time.Second)
	if _, _, err := c.receive("", ""); code(err) != 2150858843 {
		t.Errorf("after two hours: %v", err)
	}
	if n := srv.Stamp().Shells; n != 0 {
		t.Errorf("%d shells", n)
	}
}

// Every fault of a running session makes the library, or the PSRP layer, fail;
// the next session succeeds.
func TestFaultsStrikeAndPass(t *testing.T) {
	for _, c := range []struct {
		fault peptest.Fault
		want  string // of the error, "" for any
	}{
		{peptest.Fault{Kind: peptest.DropBefore, Action: "Command"}, "EOF"},
		{peptest.Fault{Kind: peptest.DropAfter, Action: "Command"}, "EOF"},
		{peptest.Fault{Kind: peptest.Cut, Action: "Receive", After: 3}, ""},
		{peptest.Fault{Kind: peptest.WSManFault, Action: "Command", Code: 995}, "fault 995: The I/O operation"},
		{peptest.Fault{Kind: peptest.Vanish, Action: "Command"}, "fault 2150858843"},
		{peptest.Fault{Kind: peptest.WrongRelatesTo, Action: "Command"}, "relates to"},
		{peptest.Fault{Kind: peptest.BadSeal, Action: "Command"}, "checksum does not match"},
		{peptest.Fault{Kind: peptest.HTML, Action: "Command"}, "relates to"},
		{peptest.Fault{Kind: peptest.Unauthorized, Action: "Command"}, ""},
		{peptest.Fault{Kind: peptest.Truncated, Action: "Receive", After: 3}, psrp.ErrTruncated.Error()},
		{peptest.Fault{Kind: peptest.Duplicate, Action: "Receive", After: 3}, psrp.ErrDuplicate.Error()},
		{peptest.Fault{Kind: peptest.Reordered, Action: "Receive", After: 3}, psrp.ErrOrder.Error()},
		{peptest.Fault{Kind: peptest.DeepNest, Action: "Receive", After: 3}, "limit"},
		{peptest.Fault{Kind: peptest.Terminating, Text: strings.Replace(peptest.TextHardwareInfo, "%s", "HOST01", 1)}, "hardware info for `HOST01`"},
		{peptest.Fault{Kind: peptest.ErrorRecord, Cmdlet: "get-azurestackstampinformation", Text: "something"}, "something"},
		{peptest.Fault{Kind: peptest.Busy}, "another action is in progress"},
	} {
		t.Run(string(c.fault.Kind)+c.fault.Action, func(t *testing.T) {
			srv := start(t)
			c.fault.Times = 1
			srv.Fail(c.fault)
			run := func() error {
				pool := open(t, newClient(t, srv, srv.Password))
				defer func() { _ = pool.Close(t.Context()) }()
				_, err := pool.Run(t.Context(), cmd("Get-AzureStackStampInformation"), psrp.Handlers{})
				return err
			}
			if err := run(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if err := run(); err != nil {
				t.Errorf("after the fault: %v", err)
			}
		})
	}
}

func TestClearReplyIsReallyClear(t *testing.T) {
	srv := start(t)
	srv.Fail(peptest.Fault{Kind: peptest.Clear, Action: "Create"})
	open(t, newClient(t, srv, srv.Password)) // this library takes it, which is why it is not used by the product
	for _, r := range srv.Requests() {
		if r.Action == "Create" && r.Fault != peptest.Clear {
			t.Errorf("%+v", r)
		}
	}
}

func TestHostileLogins(t *testing.T) {
	for _, c := range []struct {
		kind   peptest.Kind
		status int
		header string
		body   string
	}{
		{peptest.BasicOnly, 401, `Basic realm="WSMAN"`, ""},
		{peptest.HTML, 503, "", "Service Unavailable"},
	} {
		srv := start(t)
		srv.Fail(peptest.Fault{Kind: c.kind, Address: 1})
		res, err := http.Post("http://"+srv.Addresses[0]+"/wsman", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status || res.Header.Get("WWW-Authenticate") != c.header || !strings.Contains(string(body), c.body) {
			t.Errorf("%s: %s, %q, %q", c.kind, res.Status, res.Header, body)
		}
	}
}

func TestRefusedAddressListensAgain(t *testing.T) {
	srv := start(t, peptest.WithAddresses(3))
	srv.Fail(peptest.Fault{Kind: peptest.Refused, Address: 2})
	for i, addr := range srv.Addresses {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		if refused := err != nil; refused != (i == 1) {
			t.Errorf("address %d, %s: %v", i+1, addr, err)
		}
	}
	if err := srv.ClearFaults(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", srv.Addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestFaultsThatCannotBe(t *testing.T) {
	for _, f := range []peptest.Fault{
		{}, {Kind: "nonsense"}, {Kind: peptest.NoSeal, Action: "Create"}, {Kind: peptest.Cut, Action: "Dance"}, {Kind: peptest.Cut, Cmdlet: "X"},
		{Kind: peptest.Terminating}, {Kind: peptest.WSManFault}, {Kind: peptest.Refused, Times: 1}, {Kind: peptest.Hold, Action: "Receive"},
		{Kind: peptest.Truncated, Action: "Command"}, {Kind: peptest.Cut, After: -1},
	} {
		if f.Valid() == nil {
			t.Errorf("%+v is valid", f)
		}
	}
}
