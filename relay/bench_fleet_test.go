package main_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
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
	for _, run := range []struct {
		name    string
		options []azuretest.Option
		kill    bool
	}{
		{"calm", nil, false},
		{"5%-fail-and-one-kill", []azuretest.Option{azuretest.WithTrouble(1, 0.05)}, true},
	} {
		b.Run(run.name, func(b *testing.B) {
			for b.Loop() {
				benchFleet(b, n, run.kill, run.options)
			}
		})
	}
}

func benchFleet(b *testing.B, n int, kill bool, options []azuretest.Option) {
	b.StopTimer()
	srv := azuretest.NewServer(append(options, azuretest.WithThrottling(azuretest.AzureLimits()), azuretest.WithSpeed(fleetSpeed), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))...)
	defer srv.Close()
	f := newFleet(b, n, srv)
	f.env = append(f.env, fmt.Sprintf("AZS_REHEARSE_SPEED=%d", fleetSpeed))
	began := time.Now()
	var peak, cpu float64
	if kill {
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
	for tries := 0; ; tries++ {
		c := f.batch("--workers", "16")
		var talk bytes.Buffer
		c.Stderr = &talk
		out, err := c.Output()
		peak = max(peak, maxRSS(c))
		cpu += (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
		_, count := readReport(b, out)
		if err == nil {
			if count["answered"]+count["again"] != n {
				b.Fatalf("outcomes %v of %d stamps", count, n)
			}
			break
		}
		if tries == 5 {
			b.Fatalf("%v: %v: %.2000s", err, count, &talk)
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
	b.StartTimer()
}
