// Command peptest serves a simulated privileged endpoint on
// loopback for rehearsals and scripts; see package
// [github.com/azs-courier/azs-courier/agent/peptest].
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
