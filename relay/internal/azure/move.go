package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// ValidateMove asks whether a registration could be moved into another resource
// group, of the same or of another subscription. It changes nothing.
func (q Requests) ValidateMove(id RegistrationID, target GroupID) Request {
	return q.move("validateMoveResources", fmt.Sprintf("check the move of registration %q into resource group %q", id.name, target.name), id, target)
}

// Move moves a registration into another resource group, of the same or of
// another subscription. Azure refuses it while a lock stands on the way.
func (q Requests) Move(id RegistrationID, target GroupID) Request {
	return q.move("moveResources", fmt.Sprintf("move registration %q into resource group %q", id.name, target.name), id, target)
}

func (q Requests) move(action, purpose string, id RegistrationID, target GroupID) Request {
	r := q.make("POST", id.group.path()+"/"+action, resourcesVersion, purpose, at(id)).
		needs("Microsoft.Resources/subscriptions/resourceGroups/" + action + "/action")
	r.long = true
	r.body = func(string) any {
		return map[string]any{"resources": []string{id.String()}, "targetResourceGroup": target.String()}
	}
	return r
}

// ValidateMove asks Azure whether the move would be allowed, and waits for its
// word. What stands on the way is a refusal.
func (c *Client) ValidateMove(ctx context.Context, id RegistrationID, target GroupID) error {
	return c.do(ctx, c.Requests.ValidateMove(id, target), nil)
}

// Move moves a registration and returns the id that it has then. It waits until
// Azure has done it, four hours at most. A registration that is not at id but
// under the same name in the target was moved already: the answer of an earlier
// try was lost, or its waiting was.
func (c *Client) Move(ctx context.Context, id RegistrationID, target GroupID) (RegistrationID, error) {
	moved, err := target.Registration(id.name)
	if err != nil {
		return RegistrationID{}, err
	}
	q := c.Requests.Move(id, target)
	refusal := c.do(ctx, q, nil)
	if refusal == nil {
		return moved, nil
	}
	var r *Refusal
	if errors.As(refusal, &r) && r.Status == http.StatusNotFound {
		if _, there, err := c.Registration(ctx, moved); err == nil && there {
			return moved, nil
		}
	}
	return RegistrationID{}, refusal
}

// await asks for the end of an operation that Azure began: the Location of the
// 202, as often as its Retry-After says. The end is 200 or 204; everything else
// is the operation's refusal. The bearer goes to the Location, so it must be on
// the endpoint's own host.
func (c *Client) await(ctx context.Context, q Request, resp *http.Response) error {
	asked := Request{Purpose: q.Purpose, Method: "GET", URL: q.URL, place: q.place}
	for spent := time.Duration(0); ; {
		// Each 202 may name another place to ask at; none means the same.
		if link := resp.Header.Get("Location"); link != "" {
			next, err := asked.follow(link)
			if err != nil {
				return fault.New(fault.Refused, "cannot %s: %w", q.Purpose, err)
			}
			asked = next
		} else if asked.URL == q.URL {
			return fault.New(fault.Refused, "cannot %s: Azure began it and named no place to ask for its end", q.Purpose)
		}
		delay := retryAfter(resp.Header, c.retry.clock.Now())
		if delay <= 0 {
			delay = longPoll
		}
		delay = min(delay, maxRetryAfter)
		if spent >= longWait {
			return fault.New(fault.Unreachable, "cannot %s: Azure has not ended it after %s", q.Purpose, longWait).Hint("azs-relay next")
		}
		c.retry.progress(fmt.Sprintf("Azure works: %s; asking again in %s", q.Purpose, delay))
		if err := c.retry.sleep(ctx, delay); err != nil {
			return fmt.Errorf("cannot %s: stopped while Azure works on it: %w", q.Purpose, err)
		}
		spent += delay
		next, body, err := c.exchange(ctx, asked)
		if err != nil {
			return err
		}
		switch next.StatusCode {
		case http.StatusAccepted:
			resp = next
		case http.StatusOK, http.StatusNoContent:
			return nil
		default:
			return newRefusal(next, body, "")
		}
	}
}
