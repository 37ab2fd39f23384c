package azure

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// auth is one value of --auth: which options it needs and takes, and how it is
// made.
type auth struct {
	name string
	// needs and takes list options: tenant, client-id, client-secret,
	// client-certificate, device-code, token-cache. An option that is neither needed nor
	// taken is refused, as it would be silently ignored.
	needs, takes []string
	// own reports that azidentity's own retries serve the credential better
	// than ours: it probes addresses that do not answer on most machines.
	own  bool
	make func(o Options, c azcore.ClientOptions, noDiscovery bool) (azcore.TokenCredential, error)
}

var auths = []auth{
	{"default", nil, []string{"tenant"}, true, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: c, DisableInstanceDiscovery: nd, TenantID: o.Tenant})
	}},
	{"client-secret", []string{"tenant", "client-id", "client-secret"}, []string{"token-cache"}, false, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		return azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, o.ClientSecret.Reveal(), &azidentity.ClientSecretCredentialOptions{ClientOptions: c, Cache: o.opened, DisableInstanceDiscovery: nd})
	}},
	{"client-certificate", []string{"tenant", "client-id", "client-certificate"}, []string{"token-cache"}, false, certificate},
	{"azure-cli", nil, []string{"tenant"}, false, func(o Options, _ azcore.ClientOptions, _ bool) (azcore.TokenCredential, error) {
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: o.Tenant})
	}},
	{"azure-powershell", nil, []string{"tenant"}, false, func(o Options, _ azcore.ClientOptions, _ bool) (azcore.TokenCredential, error) {
		return azidentity.NewAzurePowerShellCredential(&azidentity.AzurePowerShellCredentialOptions{TenantID: o.Tenant})
	}},
	{"device-code", []string{"device-code"}, []string{"tenant", "client-id", "token-cache"}, false, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		prompt := func(_ context.Context, m azidentity.DeviceCodeMessage) error { o.DeviceCode(m.Message); return nil }
		return azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: c, Cache: o.opened, AuthenticationRecord: o.account, DisableInstanceDiscovery: nd, TenantID: o.Tenant, ClientID: o.ClientID, UserPrompt: prompt})
	}},
	{"browser", nil, []string{"tenant", "client-id", "token-cache"}, false, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		return azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{ClientOptions: c, Cache: o.opened, AuthenticationRecord: o.account, DisableInstanceDiscovery: nd, TenantID: o.Tenant, ClientID: o.ClientID})
	}},
	{"workload-identity", nil, []string{"tenant", "client-id"}, false, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: c, DisableInstanceDiscovery: nd, TenantID: o.Tenant, ClientID: o.ClientID})
	}},
	{"managed-identity", nil, []string{"client-id"}, true, func(o Options, c azcore.ClientOptions, _ bool) (azcore.TokenCredential, error) {
		m := azidentity.ManagedIdentityCredentialOptions{ClientOptions: c}
		if o.ClientID != "" {
			m.ID = azidentity.ClientID(o.ClientID)
		}
		return azidentity.NewManagedIdentityCredential(&m)
	}},
	// The service connection and the job's access token come by the names that
	// Azure Pipelines and azidentity's documentation give them.
	{"azure-pipelines", []string{"tenant", "client-id"}, nil, false, func(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
		return azidentity.NewAzurePipelinesCredential(o.Tenant, o.ClientID, os.Getenv("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"), os.Getenv("SYSTEM_ACCESSTOKEN"),
			&azidentity.AzurePipelinesCredentialOptions{ClientOptions: c, DisableInstanceDiscovery: nd})
	}},
}

// AuthNames returns the values that --auth takes.
func AuthNames() []string {
	var names []string
	for _, a := range auths {
		names = append(names, a.name)
	}
	return names
}

func certificate(o Options, c azcore.ClientOptions, nd bool) (azcore.TokenCredential, error) {
	data, err := os.ReadFile(o.ClientCertificateFile)
	if err != nil {
		return nil, fault.New(fault.Medium, "the client certificate file cannot be read: %w", err)
	}
	certs, key, err := azidentity.ParseCertificates(data, []byte(o.ClientCertificatePassword.Reveal()))
	if err != nil {
		return nil, fault.New(fault.Locked, "the client certificate file %q does not open: it must be PEM with an unencrypted key, or PKCS #12 with its password: %w", o.ClientCertificateFile, err)
	}
	return azidentity.NewClientCertificateCredential(o.Tenant, o.ClientID, certs, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: c, Cache: o.opened, DisableInstanceDiscovery: nd})
}

// given lists the options that are set.
func (o Options) given() map[string]bool {
	return map[string]bool{
		"tenant":             o.Tenant != "",
		"client-id":          o.ClientID != "",
		"client-secret":      !o.ClientSecret.Empty(),
		"client-certificate": o.ClientCertificateFile != "",
		"device-code":        o.DeviceCode != nil,
		"token-cache":        o.TokenCache,
	}
}

// method finds the auth and checks its options against each other.
func (o Options) method() (auth, error) {
	name := o.Auth
	if name == "" {
		name = "default"
	}
	i := slices.IndexFunc(auths, func(a auth) bool { return a.name == name })
	if i < 0 {
		return auth{}, fault.New(fault.Usage, "--auth %q is none of %s", name, strings.Join(AuthNames(), ", ")).
			Hint("azs-relay register BUNDLE --auth azure-cli")
	}
	a, given := auths[i], o.given()
	for _, option := range a.needs {
		if !given[option] {
			if option == "device-code" {
				return auth{}, fault.New(fault.Usage, "--auth device-code needs somebody to show the code to")
			}
			return auth{}, fault.New(fault.Usage, "--auth %s needs the %s", a.name, option).
				Hint("azs-relay register BUNDLE --auth %s --%s …", a.name, flagOf(option))
		}
	}
	for _, option := range []string{"tenant", "client-id", "client-secret", "client-certificate", "token-cache"} {
		if given[option] && !slices.Contains(a.needs, option) && !slices.Contains(a.takes, option) {
			return auth{}, fault.New(fault.Usage, "--auth %s does not use the %s that was given", a.name, option)
		}
	}
	if !o.ClientCertificatePassword.Empty() && o.ClientCertificateFile == "" {
		return auth{}, fault.New(fault.Usage, "a client certificate password was given without a client certificate file")
	}
	return a, nil
}

func flagOf(option string) string {
	if option == "client-secret" || option == "client-certificate" {
		return option + "-file"
	}
	return option
}

// credential is azidentity's, with its failures explained.
type credential struct {
	azcore.TokenCredential
	auth      string
	authority string      // host
	secret    secret.Text // of the client, which no error may quote
}

func (c *credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	w := witness{host: c.authority}
	token, err := c.TokenCredential.GetToken(withWitness(ctx, &w), o)
	if err != nil {
		return azcore.AccessToken{}, c.explain(ctx, err, w.last)
	}
	return token, nil
}

// aadsts is one sentence of Entra: "AADSTS7000215: Invalid client secret …",
// up to the trace that follows on the same line or on lines of its own.
var aadsts = regexp.MustCompile(`(AADSTS\d+.*?)(?:\s*Trace ID: |\s*[\r\n]|$)`)

// traceID is what Entra's support asks for.
var traceID = regexp.MustCompile(`Trace ID: ([0-9a-fA-F-]{36})`)

// explain gives a failed token request its kind. Entra's sentence and the
// commands that azidentity proposes (az login --claims-challenge …) are shown as
// they are.
func (c *credential) explain(ctx context.Context, err error, last *lost) error {
	const purpose = "sign in"
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if resp := responseOf(err); resp != nil {
		body, _ := runtime.Payload(resp)
		if slices.Contains(patient, resp.StatusCode) {
			return fault.New(fault.Unreachable, "cannot %s with --auth %s: %s answered %s", purpose, c.auth, c.authority, resp.Status).Hint("azs-relay next")
		}
		var entra struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal(body, &entra)
		var sentence string
		if m := aadsts.FindStringSubmatch(entra.Description); m != nil {
			sentence = m[1]
		} else {
			sentence = strings.TrimSpace(entra.Error + " " + firstLine(entra.Description))
		}
		if sentence == "" {
			sentence = "no reason given"
		}
		trace := ""
		if m := traceID.FindStringSubmatch(entra.Description); m != nil {
			trace = ", trace id " + m[1]
		}
		return fault.New(fault.Permanent, "cannot %s with --auth %s: %s answered %s: %s%s", purpose, c.auth, c.authority, resp.Status, scrub(sentence, c.secret.Reveal()), trace).
			Hint("%s", authHint(sentence))
	}
	if last != nil {
		return unreachable(purpose, last)
	}
	said := scrub(err.Error(), c.secret.Reveal())
	hint := "azs-relay register BUNDLE --auth device-code"
	// A credential that cannot ask for a second factor names the command that
	// can, with the challenge in it; it is shown as it came.
	if m := stepUpCommand.FindString(said); m != "" {
		hint = m
	}
	return fault.New(fault.Permanent, "cannot %s with --auth %s: %s", purpose, c.auth, said).Hint("%s", hint)
}

// stepUpCommand is what azidentity proposes for the credentials of the Azure CLI
// and of Azure PowerShell.
var stepUpCommand = regexp.MustCompile(`az login(?: --tenant \S+)? --claims-challenge "?[A-Za-z0-9+/=_-]+"?|Connect-AzAccount(?: -TenantId '[^']*')? -ClaimsChallenge '[^']*'`)

// responseOf returns the answer that made a token request fail.
func responseOf(err error) *http.Response {
	var failed *azidentity.AuthenticationFailedError
	var call msal.CallErr
	switch {
	case errors.As(err, &failed) && failed.RawResponse != nil:
		return failed.RawResponse
	case errors.As(err, &call):
		return call.Resp
	}
	return nil
}

// authHint returns the next command for the commonest of Entra's refusals.
func authHint(sentence string) string {
	code, _, _ := strings.Cut(sentence, ":")
	switch code {
	case "AADSTS7000215", "AADSTS7000222": // wrong secret, expired secret
		return "azs-relay register BUNDLE --auth client-secret --client-secret-file NEW-SECRET.txt"
	case "AADSTS700016", "AADSTS90002", "AADSTS900023": // application, tenant
		return "azs-relay register BUNDLE --tenant TENANT --client-id APPLICATION"
	case "AADSTS50076", "AADSTS50079", "AADSTS53003", "AADSTS50105", "AADSTS53000": // MFA, conditional access
		return "azs-relay register BUNDLE --auth browser"
	}
	return "azs-relay register BUNDLE --auth device-code"
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(s)
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
