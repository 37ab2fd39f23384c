package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Options says where to connect and as whom. The zero value is the public cloud
// with azidentity's default credential.
type Options struct {
	Cloud       string // one of CloudNames; "" is custom with an ARMEndpoint, else AzureCloud
	ARMEndpoint string // for the custom cloud only
	Manifest    string // cloud manifest file of a custom cloud, instead of its ARMEndpoint
	CAFile      string // PEM roots trusted besides the machine's

	Auth                      string // one of AuthNames; "" is default
	Tenant                    string // GUID or domain; "adfs" or "" for AD FS
	ClientID                  string
	ClientSecret              secret.Text
	ClientCertificateFile     string // PEM or PKCS #12
	ClientCertificatePassword secret.Text
	DeviceCode                func(message string) // shows where to type which code

	// TokenCache keeps what signing in gave for the next run, encrypted by the
	// system, and the account of a person beside it.
	TokenCache bool
	opened     azidentity.Cache
	account    azidentity.AuthenticationRecord

	APIVersion string // of registrations; RegistrationsVersion when ""

	Limit *Limits // the rates to keep to; nil is none

	Progress func(message string) // hears of every wait; may be nil

	// Clock and Sleep default to the machine's. Sleep returns early with the
	// context's error.
	Clock clock.Clock
	Sleep func(context.Context, time.Duration) error
}

var apiVersion = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(-preview)?$`)

// target checks the flags that name the cloud. The cloud is complete unless it
// is custom: then only its Endpoint is known before [discover].
func (o Options) target() (Cloud, error) {
	name := o.Cloud
	if name == "" {
		name = AzureCloud
		if o.ARMEndpoint != "" || o.Manifest != "" {
			name = CustomCloud
		}
	}
	if o.Manifest != "" {
		endpoint, err := readManifest(o.Manifest)
		if err != nil {
			return Cloud{}, err
		}
		if o.ARMEndpoint != "" && !strings.EqualFold(strings.TrimRight(o.ARMEndpoint, "/"), endpoint) {
			return Cloud{}, fault.New(fault.Usage, "--arm-endpoint is %q and that of --cloud-manifest is %q", o.ARMEndpoint, endpoint)
		}
		o.ARMEndpoint = endpoint
	}
	if o.APIVersion != "" && !apiVersion.MatchString(o.APIVersion) {
		return Cloud{}, fault.New(fault.Usage, "--api-version %q is not of the form %s", o.APIVersion, RegistrationsVersion)
	}
	if !strings.EqualFold(name, CustomCloud) {
		c, err := LookupCloud(name)
		if err == nil && o.ARMEndpoint != "" {
			return Cloud{}, fault.New(fault.Usage, "--arm-endpoint %q and --cloud %s contradict each other: the endpoint of %s is %s", o.ARMEndpoint, c.Name, c.Name, c.Endpoint).
				Hint("azs-relay register BUNDLE --cloud custom --arm-endpoint %s", shell(o.ARMEndpoint))
		}
		return c, err
	}
	if o.ARMEndpoint == "" {
		return Cloud{}, fault.New(fault.Usage, "--cloud custom needs the --arm-endpoint or the --cloud-manifest").
			Hint("azs-relay register BUNDLE --cloud custom --arm-endpoint https://management.REGION.FQDN")
	}
	endpoint, err := httpsURL("--arm-endpoint", o.ARMEndpoint)
	return Cloud{Name: CustomCloud, Endpoint: endpoint}, err
}

// NewRequests returns the maker of requests that [Connect] with the same
// options would use. It opens no connection.
func NewRequests(o Options) (Requests, error) {
	c, err := o.target()
	return Requests{Endpoint: c.Endpoint, APIVersion: o.APIVersion}, err
}

// Client makes the calls. It may be used by several goroutines at once.
type Client struct {
	Requests Requests // makes the requests that it sends

	cloud      Cloud
	credential azcore.TokenCredential
	pipeline   runtime.Pipeline
	retry      *retry
	sent       *tally
}

// Connect finds the cloud, signs in, and returns a client. Flags that are wrong
// or contradict each other are a [fault.Usage]; what Entra refuses is a
// [fault.Permanent] with Entra's own sentence; an endpoint that does not answer
// is [fault.Unreachable], and one that nobody vouches for [fault.Refused].
func Connect(ctx context.Context, o Options) (*Client, error) {
	target, err := o.target()
	if err != nil {
		return nil, err
	}
	method, err := o.method()
	if err != nil {
		return nil, err
	}
	hc, err := newHTTPClient(o.CAFile)
	if err != nil {
		return nil, err
	}
	again := &retry{clock: o.Clock, sleep: o.Sleep, progress: o.Progress}
	if again.clock == nil {
		again.clock = clock.System{}
	}
	if again.sleep == nil {
		again.sleep = systemSleep
	}
	if again.progress == nil {
		again.progress = func(string) {}
	}
	// Our retries stand outside azcore's, which are switched off.
	ours := policy.ClientOptions{
		Transport:       hc,
		Telemetry:       policy.TelemetryOptions{ApplicationID: "azs-relay"},
		Retry:           policy.RetryOptions{MaxRetries: -1},
		PerCallPolicies: []policy.Policy{again},
	}
	custom := target.Name == CustomCloud
	if custom {
		if target, err = discover(ctx, target.Endpoint, anonymous(ours)); err != nil {
			return nil, err
		}
	}
	if target.ADFS {
		if o.Tenant != "" && o.Tenant != "adfs" {
			return nil, fault.New(fault.Usage, "--tenant %q does not exist at %s: its authority is AD FS, whose only tenant is adfs", o.Tenant, target.Endpoint).
				Hint("azs-relay register BUNDLE --arm-endpoint %s --tenant adfs", target.Endpoint)
		}
		if slices.Contains(append(method.needs, method.takes...), "tenant") {
			o.Tenant = "adfs"
		}
	}
	ours.Cloud = target.configuration()

	theirs := ours
	if method.own {
		theirs.Retry, theirs.PerCallPolicies = policy.RetryOptions{}, nil
	}
	if o.TokenCache {
		if o.opened, err = openTokenCache(); err != nil {
			return nil, err
		}
		o.account = readAccount(o, target.Authority)
	}
	inner, err := method.make(o, theirs, custom)
	if err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return nil, err
		}
		return nil, fault.New(fault.Usage, "--auth %s: %s", method.name, scrub(err.Error(), o.ClientSecret.Reveal()))
	}
	cred := &credential{inner, method.name, hostOf(target.Authority), o.ClientSecret}
	if o.TokenCache {
		if err := keepAccount(ctx, inner, o.account, target.scope()); err != nil {
			var f *fault.Error
			if errors.As(err, &f) {
				return nil, err
			}
			return nil, cred.explain(ctx, err, nil)
		}
	}
	// Signing in first gives a refusal its own place, and a device code is
	// asked for once: the options are those of arm's pipeline.
	if _, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{target.scope()}, EnableCAE: true}); err != nil {
		return nil, err
	}
	if o.Limit != nil {
		ours.PerCallPolicies = append(ours.PerCallPolicies, &limiter{clock: again.clock, sleep: again.sleep, progress: again.progress,
			limits: *o.Limit, buckets: map[string]*tokens{}})
	}
	sent := &tally{}
	ours.PerCallPolicies = append(ours.PerCallPolicies, sent)
	a, err := arm.NewClient("azs-relay", "v0.1.0", cred, &arm.ClientOptions{ClientOptions: ours, DisableRPRegistration: true})
	if err != nil {
		return nil, fault.New(fault.Unexpected, "the Resource Manager client cannot be made: %w", err)
	}
	return &Client{
		Requests:   Requests{Endpoint: target.Endpoint, APIVersion: o.APIVersion},
		cloud:      target,
		credential: cred,
		pipeline:   a.Pipeline(),
		retry:      again,
		sent:       sent,
	}, nil
}

// Cloud returns where the client is connected to.
func (c *Client) Cloud() Cloud { return c.cloud }

// Sent returns how many requests went to Resource Manager so far, those that were
// repeated counted each time: "reads", "writes" and "deletes", as Azure's limits
// count them. A kind that was never sent is absent.
func (c *Client) Sent() map[string]int {
	c.sent.mu.Lock()
	defer c.sent.mu.Unlock()
	return maps.Clone(c.sent.kinds)
}

// do sends a request until it has one of the three ends of the package comment
// and decodes a success into out, unless out is nil. A refusal is in the
// error's chain as a [*Refusal].
func (c *Client) do(ctx context.Context, q Request, out any) error {
	reruns, renewed := 0, false
	for {
		err := c.send(ctx, q, out)
		var r *Refusal
		switch {
		case !errors.As(err, &r):
			return err
		case q.azureStack && r.has(missingProvider...) && reruns < providerReruns:
			// Registered is not yet registered everywhere.
			reruns++
			if err := c.WaitProvider(ctx, q.place.subscription); err != nil {
				return err
			}
			delay := backOff(reruns + 1)
			c.retry.progress(fmt.Sprintf("provider Microsoft.AzureStack is registered but not known everywhere; asking again in %s", delay.Round(100*time.Millisecond)))
			if err := c.retry.sleep(ctx, delay); err != nil {
				return err
			}
		case q.azureStack && c.Requests.APIVersion == "" && !renewed && r.has(retiredVersion...):
			renewed = true
			c.retry.progress("Azure no longer takes api-version " + RegistrationsVersion + "; asking by " + NewestRegistrationsVersion)
			q = q.withVersion(NewestRegistrationsVersion)
		default:
			return classify(r, q)
		}
	}
}

// send sends a request once, apart from the retries of the pipeline, waits for
// the end of an operation that Azure only began, and decodes the answer.
func (c *Client) send(ctx context.Context, q Request, out any) error {
	resp, body, err := c.exchange(ctx, q)
	if err != nil {
		return err
	}
	if q.long && resp.StatusCode == http.StatusAccepted {
		return c.await(ctx, q, resp)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
	default:
		return newRefusal(resp, body, q.token.Reveal())
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fault.New(fault.Refused, "cannot %s: the answer (%d, %d bytes) is not the JSON of Resource Manager; a proxy may have given it", q.Purpose, resp.StatusCode, len(body))
	}
	return nil
}

// exchange sends a request and reads its answer, whatever it says.
func (c *Client) exchange(ctx context.Context, q Request) (*http.Response, []byte, error) {
	req, err := runtime.NewRequest(ctx, q.Method, q.URL)
	if err != nil {
		return nil, nil, fault.New(fault.Usage, "cannot %s: %w", q.Purpose, err)
	}
	req.Raw().Header.Set("Accept", "application/json")
	if body := q.payload(); body != nil {
		if err := req.SetBody(streaming.NopCloser(bytes.NewReader(body)), "application/json"); err != nil {
			return nil, nil, fault.New(fault.Unexpected, "cannot %s: %w", q.Purpose, err)
		}
	}
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return nil, nil, c.failed(ctx, q, err)
	}
	// runtime.Payload and not runtime.NewResponseError: that one writes the
	// whole answer into azcore's log.
	body, err := runtime.Payload(resp)
	if err != nil {
		return nil, nil, c.failed(ctx, q, err)
	}
	return resp, body, nil
}

// failed explains a call that has no answer: the credential's own explanation,
// the context's end, or a lost call.
func (c *Client) failed(ctx context.Context, q Request, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return f
	case ctx.Err() != nil:
		return fmt.Errorf("cannot %s: %w", q.Purpose, ctx.Err())
	}
	if u := unreachable(q.Purpose, err); u != nil {
		return u
	}
	return fault.New(fault.Unexpected, "cannot %s: %s", q.Purpose, scrub(err.Error(), q.token.Reveal()))
}

// find is do for a read that may find nothing: a refusal with 404 and one of
// the codes is not an error. A 404 with another code, or with none as a proxy
// gives, is.
func (c *Client) find(ctx context.Context, q Request, out any, absent ...string) (bool, error) {
	err := c.do(ctx, q, out)
	if isAbsent(err, absent...) {
		return false, nil
	}
	return err == nil, err
}

func isAbsent(err error, codes ...string) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound && r.has(codes...)
}

// maxPages bounds a list: at some hundred entries a page, more registrations
// than Azure lets a subscription hold.
const maxPages = 1000

// list reads all pages of a list.
func list[T any](ctx context.Context, c *Client, q Request) ([]T, error) {
	var all []T
	seen := map[string]bool{q.URL: true}
	for range maxPages {
		var page struct {
			Value    []T    `json:"value"`
			NextLink string `json:"nextLink"`
		}
		if err := c.do(ctx, q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		if page.NextLink == "" {
			return all, nil
		}
		next, err := q.follow(page.NextLink)
		if err != nil {
			return nil, fault.New(fault.Refused, "cannot %s: %w", q.Purpose, err)
		}
		if seen[next.URL] {
			return nil, fault.New(fault.Refused, "cannot %s: the pages of the list lead in a circle", q.Purpose)
		}
		seen[next.URL] = true
		q = next
	}
	return nil, fault.New(fault.Refused, "cannot %s: the list has more than %d pages", q.Purpose, maxPages)
}
