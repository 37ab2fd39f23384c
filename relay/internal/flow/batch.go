package flow

import (
	"context"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Item is one request of a batch and where it belongs.
type Item struct {
	Name  string // as it lies on the stick
	Job   *Job
	Order Order
}

// Ended is what became of an item. A failed one has Err; one that was never begun
// because the run was stopped has Err and Skipped.
type Ended struct {
	Item
	Outcome *Outcome
	Err     error
	Skipped bool
}

// BatchOptions say how a batch runs.
type BatchOptions struct {
	Workers  int           // how many stamps at a time, at least 1
	Deadline time.Duration // for one stamp; 0 means none
}

// Batch does what the items ask for, several stamps at a time and those of one stamp
// one after the other in the order of their numbers, and hands each over as it ends:
// each is called from one goroutine at a time. The failure of one stamp stops no
// other. When the context ends, the items at work end with its error, the rest is
// skipped, and the same batch run again goes on where each stood.
func (r *Relay) Batch(ctx context.Context, items []Item, o BatchOptions, each func(Ended)) {
	queue := make(chan []Item)
	results := make(chan Ended)
	var workers sync.WaitGroup
	for range max(1, o.Workers) {
		workers.Go(func() {
			for chain := range queue {
				for _, item := range chain {
					results <- r.item(ctx, item, o.Deadline)
				}
			}
		})
	}
	go func() {
		defer close(results)
		for _, chain := range chains(items) {
			queue <- chain
		}
		close(queue)
		workers.Wait()
	}()
	for e := range results {
		each(e)
	}
}

// chains groups the items by their stamp, each group in the order of its numbers.
func chains(items []Item) [][]Item {
	var all [][]Item
	at := map[string]int{}
	for _, item := range items {
		key := strings.ToLower(item.Job.Ask.CloudID)
		i, ok := at[key]
		if !ok || key == "" {
			i = len(all)
			at[key], all = i, append(all, nil)
		}
		all[i] = append(all[i], item)
	}
	for _, chain := range all {
		sort.SliceStable(chain, func(a, b int) bool { return chain[a].Job.Manifest.Seq < chain[b].Job.Manifest.Seq })
	}
	return all
}

func (r *Relay) item(ctx context.Context, item Item, deadline time.Duration) Ended {
	if err := ctx.Err(); err != nil {
		return Ended{Item: item, Err: err, Skipped: true}
	}
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, deadline, fault.New(fault.Unreachable, "stamp %q took more than %s", item.Job.Ask.CloudID, deadline))
		defer cancel()
	}
	out, err := r.Handle(ctx, item.Job, item.Order, nil)
	if cause := context.Cause(ctx); err != nil && cause != nil && fault.KindOf(cause) == fault.Unreachable {
		err = cause
	}
	return Ended{Item: item, Outcome: out, Err: err}
}
