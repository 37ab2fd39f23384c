package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	_ "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm/runtime" // fills the endpoints of the clouds
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// The names of the clouds, as the official cmdlets spell them.
const (
	AzureCloud        = "AzureCloud"
	AzureUSGovernment = "AzureUSGovernment"
	AzureChinaCloud   = "AzureChinaCloud"
	CustomCloud       = "custom"
)

// CloudNames returns the names that --cloud takes.
func CloudNames() []string {
	return []string{AzureCloud, AzureUSGovernment, AzureChinaCloud, CustomCloud}
}

// Cloud is where a registration lives.
type Cloud struct {
	Name      string
	Authority string // "https://login.microsoftonline.com/", a slash at the end
	Endpoint  string // of Resource Manager: "https://management.azure.com", no slash at the end
	Audience  string // of access tokens
	ADFS      bool   // the authority is AD FS, whose only tenant is "adfs"

	// DefaultLocation is where the official scripts create the resource group;
	// "" for a custom cloud, which has no default but the first location listed.
	DefaultLocation string
}

// LookupCloud returns a public cloud by name, without regard to letter case. An
// unknown name is a [fault.Usage]; so is Azure Germany, with the reason.
func LookupCloud(name string) (Cloud, error) {
	known := []struct {
		name, location string
		conf           cloud.Configuration
	}{
		{AzureCloud, "westcentralus", cloud.AzurePublic},
		{AzureUSGovernment, "usgovvirginia", cloud.AzureGovernment},
		{AzureChinaCloud, "chinaeast", cloud.AzureChina},
	}
	for _, k := range known {
		if strings.EqualFold(name, k.name) {
			arm := k.conf.Services[cloud.ResourceManager]
			return Cloud{Name: k.name, Authority: k.conf.ActiveDirectoryAuthorityHost,
				Endpoint: arm.Endpoint, Audience: arm.Audience, DefaultLocation: k.location}, nil
		}
	}
	if strings.Contains(strings.ToLower(name), "german") {
		return Cloud{}, fault.New(fault.Usage, "cloud %q is not supported: Azure Stack Hub was never registered there, and Azure Germany was closed in October 2021", name).
			Hint("azs-relay register BUNDLE --cloud %s", AzureCloud)
	}
	return Cloud{}, fault.New(fault.Usage, "cloud %q is none of %s", name, strings.Join(CloudNames(), ", ")).
		Hint("azs-relay register BUNDLE --cloud %s", AzureCloud)
}

// configuration returns the cloud in azcore's terms.
func (c Cloud) configuration() cloud.Configuration {
	return cloud.Configuration{
		ActiveDirectoryAuthorityHost: c.Authority,
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: c.Endpoint, Audience: c.Audience},
		},
	}
}

// scope is the one scope of all tokens. It must be spelt as azcore/arm spells
// it, or the token cache would hold two.
func (c Cloud) scope() string { return c.Audience + "/.default" }

// httpsURL returns s without slashes at its end, when it is an https URL of
// nothing but a host and perhaps a path.
func httpsURL(what, s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return "", fault.New(fault.Usage, "%s %q is not a URL such as https://management.example.com", what, s)
	case u.Scheme != "https":
		return "", fault.New(fault.Usage, "%s %q is not https: tokens would travel in the clear", what, s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fault.New(fault.Usage, "%s %q holds more than a host and a path", what, s)
	}
	return strings.TrimRight(s, "/"), nil
}

// metadata is what an endpoint tells about its cloud without a token. The
// version 2015-01-01 gives loginEndpoint and audiences only.
type metadata struct {
	Name            string `json:"name"`
	ResourceManager string `json:"resourceManager"`
	Authentication  struct {
		LoginEndpoint string   `json:"loginEndpoint"`
		Audiences     []string `json:"audiences"`
	} `json:"authentication"`
}

// discover asks a Resource Manager endpoint for the rest of its cloud, by
// api-version 2022-09-01 and, when that is refused or not understood, by
// 2015-01-01. Both an object and a list of objects are read: Azure answers the
// first and Azure Stack Hub the second.
func discover(ctx context.Context, endpoint string, pipeline runtime.Pipeline) (Cloud, error) {
	purpose := "read the metadata of " + endpoint
	var reasons []error
	for _, version := range []string{"2022-09-01", "2015-01-01"} {
		req, err := runtime.NewRequest(ctx, http.MethodGet, endpoint+"/metadata/endpoints?api-version="+version)
		if err != nil {
			return Cloud{}, fault.New(fault.Usage, "cannot %s: %w", purpose, err)
		}
		req.Raw().Header.Set("Accept", "application/json")
		resp, err := pipeline.Do(req)
		if err != nil {
			if u := unreachable(purpose, err); u != nil {
				return Cloud{}, u
			}
			return Cloud{}, fmt.Errorf("cannot %s: %w", purpose, err)
		}
		body, err := runtime.Payload(resp)
		if err != nil {
			return Cloud{}, fmt.Errorf("cannot %s: %w", purpose, err)
		}
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			return Cloud{}, fault.New(fault.Unreachable, "cannot %s: it answered %s", purpose, resp.Status).Hint("azs-relay next")
		}
		if resp.StatusCode != http.StatusOK {
			reasons = append(reasons, fmt.Errorf("api-version %s: it answered %s", version, resp.Status))
			continue
		}
		c, err := readMetadata(endpoint, body)
		if err == nil {
			return c, nil
		}
		reasons = append(reasons, fmt.Errorf("api-version %s: %w", version, err))
	}
	return Cloud{}, fault.New(fault.Permanent, "cannot %s: %w", purpose, errors.Join(reasons...)).
		Hint("azs-relay register BUNDLE --cloud custom --arm-endpoint https://management.REGION.FQDN")
}

// readMetadata reads either shape of the answer. The endpoint stays the one
// that the operator gave.
func readMetadata(endpoint string, body []byte) (Cloud, error) {
	var list []metadata
	if err := json.Unmarshal(body, &list); err != nil {
		var one metadata
		if err := json.Unmarshal(body, &one); err != nil {
			return Cloud{}, errors.New("the answer is neither a JSON object nor a list of them")
		}
		list = []metadata{one}
	}
	var m metadata
	switch len(list) {
	case 0:
		return Cloud{}, errors.New("the list of clouds is empty")
	case 1:
		m = list[0]
	default:
		for _, c := range list {
			if strings.EqualFold(strings.TrimRight(c.ResourceManager, "/"), endpoint) {
				m = c
			}
		}
	}
	login := m.Authentication.LoginEndpoint
	if login == "" || len(m.Authentication.Audiences) == 0 || m.Authentication.Audiences[0] == "" {
		return Cloud{}, errors.New("the answer names no loginEndpoint or no audience for this endpoint")
	}
	login, err := httpsURL("loginEndpoint", login)
	if err != nil {
		return Cloud{}, err
	}
	c := Cloud{Name: CustomCloud, Endpoint: endpoint, Audience: m.Authentication.Audiences[0]}
	if host, ok := strings.CutSuffix(strings.ToLower(login), "/adfs"); ok {
		c.ADFS, login = true, login[:len(host)]
	}
	c.Authority = login + "/"
	return c, nil
}

// anonymous is the pipeline for metadata: no credential, no telemetry.
func anonymous(options policy.ClientOptions) runtime.Pipeline {
	options.Telemetry.Disabled = true
	return runtime.NewPipeline("", "", runtime.PipelineOptions{}, &options)
}
