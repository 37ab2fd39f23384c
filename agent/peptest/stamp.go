package peptest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// Stamp is the state of the simulated stamp. Nothing secret is in it.
type Stamp struct {
	CloudID       string `json:"cloudId"`
	Version       string `json:"version"`
	Nodes         int    `json:"nodes"`
	DeploymentID  string `json:"deploymentId"`
	Activated     bool   `json:"activated"`
	KeySHA256     string `json:"keySha256,omitempty"` // of the activation key in force, in hex
	Activations   int    `json:"activations"`         // that were begun
	Deactivations int    `json:"deactivations"`
	Tokens        int    `json:"tokens"`
	KeyPairs      int    `json:"keyPairs"`
	Licenses      int    `json:"licenses"`
	Action        string `json:"action,omitempty"` // id of the action that is running
	Shells        int    `json:"shells"`           // that are open
}

// stamp is guarded by Server.mu, its version, deployment and finish never change.
type stamp struct {
	version    version
	deployment string
	state      Stamp
	action     string
	finish     chan struct{} // closed by Finish
}

// Stamp returns the stamp's state now.
func (s *Server) Stamp() Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropIdle()
	out := s.stamp.state
	out.CloudID, out.Version, out.Nodes, out.DeploymentID = s.CloudID, s.stamp.version.String(), s.config.nodes, s.stamp.deployment
	out.Action, out.Shells = s.stamp.action, len(s.shells)
	return out
}

func (s *Server) change(f func(*Stamp)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stamp.state)
}

// Finish ends the time that the action in progress takes and that later ones would
// take from now on, and says whether one is in progress. One that a fault holds
// waits for [Server.Release] as well.
func (s *Server) Finish() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stamp.finish:
	default:
		close(s.stamp.finish)
	}
	return s.stamp.action != ""
}

// hold counts something in that waits for Release.
func (s *Server) hold() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	return s.released
}

// wait waits for done, or until the pipeline is stopped.
func (p *pipeline) wait(done <-chan struct{}) {
	p.flush()
	select {
	case <-done:
	case <-p.ctx.Done():
	}
}

func stampInformation(p *pipeline, _ arguments) *psrp.ErrorRecord {
	s := p.s
	region := "local"
	domain := region + "." + dnsDomainName
	var v clixml.Value = clixml.Version(s.stamp.version.String())
	if s.config.versionAsString {
		v = clixml.String(s.stamp.version.String())
	}
	text := func(name, value string) clixml.Member { return clixml.M(name, clixml.String(value)) }
	custom := func(members ...clixml.Member) *clixml.Object {
		o := clixml.Bag(members...)
		o.Types = []string{"System.Management.Automation.PSCustomObject", "System.Object"}
		return o
	}
	endpoints := func(prefix string) *clixml.Object {
		return custom(text("AdminResourceManager", "https://"+prefix+"management."+domain+"/"),
			text("Portal", "https://"+prefix+"portal."+domain+"/"), text("KeyVault", "https://"+prefix+"vault."+domain+"/"))
	}
	p.write(psrp.NewOutput(p.sh.pool, p.id, custom(
		clixml.M("StampVersion", v),
		text("CloudID", s.CloudID),
		text("DeploymentID", s.stamp.deployment),
		clixml.M("NumberOfNodes", clixml.Int32(s.config.nodes)),
		text("AADTenantID", ""),
		text("RegionName", region),
		text("ExternalDomainFQDN", domain),
		text("ExternalDNSIPAddress01", "192.0.2.10"),
		text("ExternalDNSIPAddress02", "192.0.2.11"),
		clixml.M("AdminExternalEndpoints", endpoints("admin")),
		clixml.M("TenantExternalEndpoints", endpoints("")),
		text("PSComputerName", p.s.Addresses[p.sh.address-1]),
	)))
	return nil
}

func setKeyPair(p *pipeline, _ arguments) *psrp.ErrorRecord {
	p.s.change(func(st *Stamp) { st.KeyPairs++ })
	return nil
}

func newToken(p *pipeline, a arguments) *psrp.ErrorRecord {
	model := a.text("BillingModel")
	models := []string{"Capacity", "Custom", "Development", "PayAsYouUse", "Ruggedized"}
	if i := slices.IndexFunc(models, func(m string) bool { return strings.EqualFold(m, model) }); i >= 0 {
		model = models[i]
	} else {
		return thrown("New-RegistrationToken", fmt.Sprintf("BillingModel %q is none of %s", model, strings.Join(models, ", ")))
	}
	if v := a.text("TokenVersion"); v != "" && v != "3.0" && v != "4.0" && (v != "6.0" || !newer(p.s.stamp.version, afterToken6)) {
		return thrown("New-RegistrationToken", fmt.Sprintf("TokenVersion %q is not supported by this stamp", v))
	}
	seed := uint64(0)
	p.s.change(func(st *Stamp) { st.Tokens++; seed = uint64(st.Tokens) })
	p.write(psrp.NewOutput(p.sh.pool, p.id, clixml.String(officialtest.Token(officialtest.Spec{
		Seed: seed, Nodes: p.s.config.nodes, CloudID: p.s.CloudID, BillingModel: model, AgreementNumber: a.text("AgreementNumber"),
		UsageReporting: a.on("UsageReportingEnabled"), MarketplaceSyndication: a.on("MarketplaceSyndicationEnabled"),
		Version: a.text("TokenVersion"),
	}))))
	return nil
}

func newer(v, w version) bool { return v != w && v.atLeast(w) }

func newActivation(p *pipeline, a arguments) *psrp.ErrorRecord {
	const name = "New-AzureStackActivation"
	key := a.text("ActivationKey")
	if key == "" {
		return bindingError(name, "ActivationKey", "ParameterArgumentValidationErrorEmptyStringNotAllowed",
			"Cannot bind argument to parameter 'ActivationKey' because it is an empty string.")
	}
	cloudID, err := keyCloudID(key)
	if err != nil {
		return thrown(name, "The activation key cannot be read: "+err.Error())
	}
	if !strings.EqualFold(cloudID, p.s.CloudID) {
		return thrown(name, fmt.Sprintf("The activation key is for the cloud identifier [%s], this stamp is [%s].", cloudID, p.s.CloudID))
	}
	sum := sha256.Sum256([]byte(key))
	return p.act(name, a, func(st *Stamp) { st.Activations++ }, func(st *Stamp) {
		st.Activated, st.KeySHA256 = true, hex.EncodeToString(sum[:])
	})
}

func removeActivation(p *pipeline, a arguments) *psrp.ErrorRecord {
	return p.act("Remove-AzureStackActivation", a, func(st *Stamp) { st.Deactivations++ }, func(st *Stamp) {
		st.Activated, st.KeySHA256 = false, ""
	})
}

func saveLicense(p *pipeline, a arguments) *psrp.ErrorRecord {
	if a.text("License") == "" {
		return bindingError("Save-HCILicense", "License", "ParameterArgumentValidationErrorEmptyStringNotAllowed",
			"Cannot bind argument to parameter 'License' because it is an empty string.")
	}
	p.s.change(func(st *Stamp) { st.Licenses++ })
	return nil
}

// keyCloudID returns the cloud id that an activation key, a compact JWS, claims.
func keyCloudID(key string) (string, error) {
	parts := strings.Split(strings.TrimSpace(key), ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("it has %d parts, want 3", len(parts))
	}
	for _, p := range parts {
		if _, err := base64.RawURLEncoding.DecodeString(p); err != nil {
			return "", err
		}
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ CloudID string }
	if err := json.Unmarshal(raw, &claims); err != nil {
		return "", errors.New("its claims are not JSON")
	}
	return claims.CloudID, nil
}

// actionCmdlets run an action, which a [Hold] holds instead of the cmdlet.
var actionCmdlets = []string{"New-AzureStackActivation", "Remove-AzureStackActivation"}

// act runs an action of the stamp and tells of its progress. The action goes on
// when the pipeline is stopped, its shell vanishes, or its time is out, as the
// real one's does; only one runs at a time.
func (p *pipeline) act(name string, a arguments, begin, finish func(*Stamp)) *psrp.ErrorRecord {
	s := p.s
	s.mu.Lock()
	if running := s.stamp.action; running != "" {
		s.mu.Unlock()
		return thrown(name, fmt.Sprintf(TextBusy, running))
	}
	id := strings.ToLower(newGUID().String())
	s.stamp.action = id
	begin(&s.stamp.state)
	done := make(chan struct{})
	s.serving.Go(func() { s.action(p.hold, done, finish) })
	s.mu.Unlock()

	progress := func(status string, percent int32) {
		p.write(psrp.NewProgress(p.sh.pool, p.id, psrp.Progress{Activity: name, Status: status, ActivityID: 1, ParentID: -1,
			Percent: percent, SecondsRemaining: -1, Completed: percent == 100}))
		p.write(psrp.NewRecord(p.sh.pool, p.id, psrp.Record{Stream: psrp.VerboseRecord, Text: fmt.Sprintf("%s: action plan %s: %s", name, id, status)}))
	}
	progress("In progress", 0)
	var expired <-chan time.Time
	if n, ok := clixml.Int(a["TimeoutInSeconds"]); ok && n > 0 {
		timer := time.NewTimer(time.Duration(n) * time.Second)
		defer timer.Stop()
		expired = timer.C
	}
	tick := time.NewTicker(max(s.config.activation/10, 10*time.Millisecond))
	defer tick.Stop()
	if s.config.activation == 0 && p.hold == nil {
		<-done // at once, so that the number of replies does not depend on who is faster
	}
	for percent := int32(10); ; percent += 10 {
		select {
		case <-done:
		default:
			p.flush()
		}
		select {
		case <-done:
			progress("Completed", 100)
			return nil
		case <-p.ctx.Done():
			return stopped()
		case <-expired:
			return thrown(name, fmt.Sprintf("The action plan %s did not complete within the time specified in TimeoutInSeconds.", id))
		case <-tick.C:
			if s.config.activation > 0 && percent < 100 {
				progress("In progress", percent)
			}
		}
	}
}

// action takes its time and then takes effect.
func (s *Server) action(hold <-chan struct{}, done chan<- struct{}, finish func(*Stamp)) {
	defer close(done)
	timer := time.NewTimer(s.config.activation)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stamp.finish:
	case <-s.ctx.Done():
		return
	}
	if hold != nil {
		select {
		case <-hold:
		case <-s.ctx.Done():
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stamp.action = ""
	finish(&s.stamp.state)
}
