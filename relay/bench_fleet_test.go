package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/pgstate/pgtest"
)

// fleetSpeed is how much faster than a wall clock the buckets of the simulated
// Azure refill, and the relay's own.
const fleetSpeed = 5

// BenchmarkFleet registers AZS_FLEET_N stamps (default 1000) of one subscription
// under the documented rates of Resource Manager, with the real program as a child
// process, and compares with the least time that the rates allow: three writes a
// stamp, less the 200 of a full bucket, at ten a second.
//
//	bucket-s     that least time, in seconds of Azure's clock
//	total/bucket the time of the run by the same clock, over it
//	cpu-ms/stamp processor time of the program
//	429          answers of Azure that refused a call by its rate
//	rss-MiB      the most memory that the program held
//	doubled      registrations that were put twice with success
func BenchmarkFleet(b *testing.B) {
	n := 1000
	if v := os.Getenv("AZS_FLEET_N"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 1 {
			b.Fatalf("AZS_FLEET_N is %q, not a number of stamps", v)
		}
	}
	for _, run := range []fleetRun{
		{name: "folder", hosts: 1},
		{name: "folder/5%-fail-and-one-kill", hosts: 1, kill: true, options: []azuretest.Option{azuretest.WithTrouble(1, 0.05)}},
		{name: "postgres/one-host", hosts: 1, database: true},
		{name: "postgres/two-hosts", hosts: 2, database: true},
	} {
		b.Run(run.name, func(b *testing.B) {
			if run.database {
				pg := pgtest.Need(b)
				pass := filepath.Join(b.TempDir(), "passphrase")
				if err := os.WriteFile(pass, []byte("a passphrase of the benchmark\n"), 0o600); err != nil {
					b.Fatal(err)
				}
				b.Setenv("AZS_RELAY_STATE", pg.NewDatabase(b))
				b.Setenv("AZS_PASSPHRASE_FILE", pass)
			}
			if b.N > 1 { // one run tells; the database is used up by it
				b.Skip("one run is enough: -benchtime 1x")
			}
			benchFleet(b, n, run)
		})
	}
}

// fleetRun is one way to serve a fleet.
type fleetRun struct {
	name     string
	hosts    int // relays at work on the same requests
	database bool
	kill     bool // the first run, in the middle
	options  []azuretest.Option
}

func benchFleet(b *testing.B, n int, run fleetRun) {
	srv := azuretest.NewServer(append(run.options, azuretest.WithThrottling(azuretest.AzureLimits()), azuretest.WithSpeed(fleetSpeed), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))...)
	defer srv.Close()
	f := newFleet(b, n, srv)
	f.env = append(f.env, fmt.Sprintf("AZS_REHEARSE_SPEED=%d", fleetSpeed))
	began := time.Now()
	var peak, cpu float64
	if run.kill {
		c := f.batch("--workers", "16")
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		if err := srv.Wait(b.Context(), "PUT", "*/registrations/*", n/2); err != nil {
			b.Fatal(err)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	// Each host has a stick of its own with the same requests, and goes on until its
	// own run has no failure.
	type ended struct {
		peak, cpu float64
		err       error
	}
	results := make(chan ended)
	for i := range run.hosts {
		host := *f
		if i > 0 {
			host.home, host.stick = filepath.Join(b.TempDir(), "no-folder"), filepath.Join(b.TempDir(), "stick")
			if err := os.CopyFS(host.stick, os.DirFS(f.stick)); err != nil {
				b.Fatal(err)
			}
		}
		go func() {
			var e ended
			for range 6 {
				c := host.batch("--workers", "16")
				var talk bytes.Buffer
				c.Stderr = &talk
				out, err := c.Output()
				e.peak = max(e.peak, maxRSS(c))
				e.cpu += (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
				_, count := readReport(b, out)
				if e.err = nil; err == nil && count["answered"]+count["again"] == n {
					break
				}
				e.err = fmt.Errorf("%v: %v: %.2000s", err, count, &talk)
			}
			results <- e
		}()
	}
	for range run.hosts {
		e := <-results
		peak, cpu = max(peak, e.peak), cpu+e.cpu
		if e.err != nil {
			b.Fatal(e.err)
		}
	}
	spent := time.Since(began)
	_, doubled := f.doubles(n)
	reads, writes, refused := 0, 0, 0
	for _, r := range srv.Requests() {
		switch {
		case !strings.HasPrefix(r.Path, "/subscriptions"):
		case r.Status == 429:
			refused++
		case r.Method == "GET":
			reads++
		default:
			writes++
		}
	}
	limit := max(1, float64(3*n-200)/10)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(limit, "bucket-s")
	b.ReportMetric(cpu*1000/float64(n), "cpu-ms/stamp")
	b.ReportMetric(spent.Seconds()*fleetSpeed/limit, "total/bucket")
	b.ReportMetric(float64(writes)/float64(n), "writes/stamp")
	b.ReportMetric(float64(reads)/float64(n), "reads/stamp")
	b.ReportMetric(float64(refused), "429")
	b.ReportMetric(float64(doubled), "doubled")
	if runtime.GOOS != "windows" {
		b.ReportMetric(peak, "rss-MiB")
	}
}
