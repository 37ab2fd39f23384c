package pep

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Stamp is what Get-AzureStackStampInformation tells. A property that it does not
// have is empty.
type Stamp struct {
	CloudID      string
	Version      Version
	DeploymentID string
	Nodes        int // 0 when not told
	Region       string
	Domain       string // ExternalDomainFQDN
	TenantID     string // AADTenantID; a stamp on AD FS has none
}

// Stamp runs Get-AzureStackStampInformation.
func (s *Session) Stamp(ctx context.Context) (Stamp, error) {
	out, err := s.run(ctx, psrp.Command{Name: "Get-AzureStackStampInformation"}, Watch{}, 0)
	if err != nil {
		return Stamp{}, err
	}
	if len(out) == 0 {
		return Stamp{}, fault.New(fault.Refused, "Get-AzureStackStampInformation wrote nothing")
	}
	info := out[len(out)-1]
	text := func(name string) string {
		v, ok := clixml.Get(info, name)
		if !ok {
			return ""
		}
		return strings.TrimSpace(clixml.Text(v))
	}
	st := Stamp{CloudID: text("CloudID"), DeploymentID: text("DeploymentID"), Region: text("RegionName"),
		Domain: text("ExternalDomainFQDN"), TenantID: text("AADTenantID")}
	if st.CloudID == "" {
		return Stamp{}, fault.New(fault.Refused, "Get-AzureStackStampInformation tells no CloudID")
	}
	if st.Version, err = ParseVersion(text("StampVersion")); err != nil {
		return Stamp{}, fault.New(fault.Refused, "Get-AzureStackStampInformation: %w", err)
	}
	if v, ok := clixml.Get(info, "NumberOfNodes"); ok {
		if n, isInt := clixml.Int(v); isInt {
			st.Nodes = int(n)
		} else if n, err := strconv.Atoi(clixml.Text(v)); err == nil {
			st.Nodes = n
		}
	}
	return st, nil
}

// keyPair reports whether the gate of Set-RegistrationKeyPair and Save-HCILicense
// is open.
func (st Stamp) keyPair() bool { return st.Version.Newer(afterKeyPair) && st.Nodes > 1 }

// SetKeyPair runs Set-RegistrationKeyPair where the official module does; on other
// stamps it does nothing.
func (s *Session) SetKeyPair(ctx context.Context, st Stamp) error {
	if !st.keyPair() {
		return nil
	}
	_, err := s.run(ctx, psrp.Command{Name: "Set-RegistrationKeyPair"}, Watch{}, 0)
	return err
}

// TokenParameters are those of New-RegistrationToken.
type TokenParameters struct {
	BillingModel    string
	AgreementNumber string
	UsageReporting  bool
	MsAssetTag      string
	TokenVersion    string // 3.0, 4.0, 6.0; "" or auto is what the official module takes
}

// Validate refuses, before a session is opened, what contradicts itself. The
// official module changes such values silently.
func (p TokenParameters) Validate() error {
	bad := func(format string, args ...any) error { return fault.New(fault.Usage, format, args...) }
	switch strings.ToLower(p.BillingModel) {
	case "capacity":
		if p.AgreementNumber == "" {
			return fault.New(fault.Usage, "billing model Capacity needs the number of the Enterprise Agreement").Hint("azs-agent token --pep … --billing-model Capacity --agreement-number NUMBER")
		}
		if p.UsageReporting {
			return bad("billing model Capacity reports no usage: --usage-reporting true contradicts it")
		}
	case "custom":
		if p.MsAssetTag == "" {
			return fault.New(fault.Usage, "billing model Custom needs an asset tag").Hint("azs-agent token --pep … --billing-model Custom --ms-asset-tag TAG")
		}
	case "development":
	case "":
		return fault.New(fault.Usage, "the stamp makes a token for one billing model: which one?").Hint("azs-agent token --pep … --billing-model Capacity --agreement-number NUMBER")
	case "payasyouuse", "ruggedized":
		return bad("billing model %s is for connected stamps; a disconnected one registers with Capacity, Custom or Development", p.BillingModel)
	default:
		return bad("billing model %q is none of Capacity, Custom, Development", p.BillingModel)
	}
	switch p.TokenVersion {
	case "", "auto", "3.0", "4.0", "6.0":
		return nil
	}
	return bad("--token-version is %q, want auto, 3.0, 4.0 or 6.0", p.TokenVersion)
}

// optional is a parameter that not every stamp knows. It may be left out only
// where leaving it out means the same.
type optional struct {
	psrp.Parameter
	droppable bool
}

// parameters applies the version gates. The version of the token that will be
// asked for is returned too, "" for a stamp that knows no versions.
func (p TokenParameters) parameters(st Stamp) ([]optional, string, error) {
	out := []optional{
		{psrp.Param("BillingModel", p.BillingModel), false},
		{psrp.Switch("MarketplaceSyndicationEnabled", false), true},
		{psrp.Switch("UsageReportingEnabled", p.UsageReporting), !p.UsageReporting},
		{psrp.Param("AgreementNumber", p.AgreementNumber), p.AgreementNumber == ""},
	}
	switch {
	case st.Version.AtLeast(sinceMsAssetTag):
		out = append(out, optional{psrp.Param("MsAssetTag", p.MsAssetTag), p.MsAssetTag == ""})
	case p.MsAssetTag != "":
		return nil, "", fault.New(fault.Usage, "asset tags are known from stamp version %s on, this stamp is %s", sinceMsAssetTag, st.Version)
	}
	auto := p.TokenVersion == "" || p.TokenVersion == "auto"
	version := p.TokenVersion
	switch {
	case !st.Version.AtLeast(sinceTokenVersion):
		if !auto {
			return nil, "", fault.New(fault.Usage, "token versions are known from stamp version %s on, this stamp is %s", sinceTokenVersion, st.Version).Hint("azs-agent token --pep … --token-version auto")
		}
		return out, "", nil
	case auto && st.Version.Newer(afterToken6):
		version = "6.0"
	case auto:
		version = "4.0"
	}
	return append(out, optional{psrp.Param("TokenVersion", version), auto}), version, nil
}

// NewToken runs New-RegistrationToken and returns the registration token and the
// version that was asked for. A parameter that the stamp turns out not to know is
// left out and the call repeated, where leaving it out means the same.
func (s *Session) NewToken(ctx context.Context, st Stamp, p TokenParameters) (secret.Text, string, error) {
	params, version, err := p.parameters(st)
	if err != nil {
		return secret.Text{}, "", err
	}
	for {
		c := psrp.Command{Name: "New-RegistrationToken"}
		for _, o := range params {
			c.Parameters = append(c.Parameters, o.Parameter)
		}
		out, err := s.run(ctx, c, Watch{}, 0)
		if err == nil {
			token, err := one(out)
			return token, version, err
		}
		unknown := unknownParameter(err)
		i := indexOf(params, unknown)
		if i < 0 || !params[i].droppable {
			return secret.Text{}, "", err
		}
		s.say("the stamp does not know the parameter %s: again without it", params[i].Name)
		if params[i].Name == "TokenVersion" {
			version = ""
		}
		params = append(params[:i:i], params[i+1:]...)
	}
}

// one takes the token out of the output: the only string in it.
func one(out []clixml.Value) (secret.Text, error) {
	var found []string
	for _, v := range out {
		if t := strings.TrimSpace(clixml.Text(v)); t != "" {
			found = append(found, t)
		}
	}
	if len(found) != 1 {
		return secret.Text{}, fault.New(fault.Refused, "New-RegistrationToken wrote %d texts, want the registration token alone", len(found))
	}
	return secret.New(found[0]), nil
}

func indexOf(params []optional, name string) int {
	for i, o := range params {
		if name != "" && strings.EqualFold(o.Name, name) {
			return i
		}
	}
	return -1
}

// unknownParameter returns the name in "A parameter cannot be found that matches
// parameter name 'X'", or "".
func unknownParameter(err error) string {
	var re *psrp.RemoteError
	if !errors.As(err, &re) {
		return ""
	}
	for _, r := range re.Records {
		if !strings.HasPrefix(r.FullyQualifiedErrorID, "NamedParameterNotFound") {
			continue
		}
		if _, rest, ok := strings.Cut(r.Message, "parameter name '"); ok {
			name, _, _ := strings.Cut(rest, "'")
			return name
		}
	}
	return ""
}

// ActivationTimeout is what the official module asks of New-AzureStackActivation.
const ActivationTimeout = 30 * time.Minute

const activationLimit = ActivationTimeout + 5*time.Minute

// NewActivation runs New-AzureStackActivation. When it returns an error that
// [OutcomeUnknown] reports, the stamp may be activated or still activating.
func (s *Session) NewActivation(ctx context.Context, key secret.Text, w Watch) error {
	_, err := s.run(ctx, psrp.Command{Name: "New-AzureStackActivation", Parameters: []psrp.Parameter{
		psrp.Param("ActivationKey", key.Reveal()),
		psrp.Number("TimeoutInSeconds", int32(ActivationTimeout/time.Second)),
	}}, w, or(s.options.Limits.Activation, activationLimit))
	return err
}

// RemoveActivation runs Remove-AzureStackActivation.
func (s *Session) RemoveActivation(ctx context.Context, w Watch) error {
	_, err := s.run(ctx, psrp.Command{Name: "Remove-AzureStackActivation"}, w, or(s.options.Limits.Activation, activationLimit))
	return err
}

// SaveHCILicense runs Save-HCILicense; a stamp that is too old or has one node is
// refused, as the official module silently skips it.
func (s *Session) SaveHCILicense(ctx context.Context, st Stamp, license secret.Text) error {
	if !st.keyPair() {
		return fault.New(fault.Usage, "licenses are known on stamps of more than one node after version %s; this one has %d and is %s", afterKeyPair, st.Nodes, st.Version)
	}
	_, err := s.run(ctx, psrp.Command{Name: "Save-HCILicense", Parameters: []psrp.Parameter{psrp.Param("License", license.Reveal())}}, Watch{}, 0)
	return err
}

// documented are the errors that the article and public threads name, by a piece
// of their text.
var documented = []struct {
	text string
	kind fault.Kind
	what string
	hint string
}{
	{"mandatory hardware info", fault.Unreachable, "the stamp could not read the hardware of one of its hosts",
		"check that host and its connectivity, then run the same command again"},
	{"to get hardware info", fault.Unreachable, "the stamp could not reach one of its hosts to read its hardware",
		"check that host and its connectivity, then run the same command again"},
	{"is already registered", fault.Permanent, "the cloud id is registered already",
		"azs-agent deactivate --pep …, carry it to the relay, then azs-agent token"},
	{"another action is in progress", fault.NothingYet, "the stamp is busy with another action",
		"the same command with --wait 1h, or later"},
	{"ActivationKey' because it is an empty string", fault.Unexpected, "the stamp received no activation key", ""},
}

// explain turns the errors of a call into faults with their own sentence.
func explain(err error) error {
	var re *psrp.RemoteError
	if !errors.As(err, &re) {
		return fault.New(fault.Permanent, "%w", err)
	}
	for _, r := range re.Records {
		for _, d := range documented {
			if strings.Contains(strings.ToLower(r.Message), strings.ToLower(d.text)) {
				return fault.New(d.kind, "%s: %w", d.what, err).Hint("%s", d.hint)
			}
		}
	}
	return fault.New(fault.Permanent, "%w", err).Hint("azs-agent doctor --pep …")
}

// Busy reports whether the stamp said that another action is in progress.
func Busy(err error) bool {
	var re *psrp.RemoteError
	if !errors.As(err, &re) {
		return false
	}
	for _, r := range re.Records {
		if strings.Contains(r.Message, "another action is in progress") {
			return true
		}
	}
	return false
}

// OutcomeUnknown reports whether a command may have run although its call failed.
// That is so of a pipeline that was stopped, too, by whomever: what it had begun
// goes on.
func OutcomeUnknown(err error) bool {
	var u *psrp.UnknownOutcome
	var st *psrp.Stopped
	var re *psrp.RemoteError
	return errors.As(err, &u) || errors.As(err, &st) || errors.As(err, &re) && re.State == psrp.PipelineStopped
}

// Watch tells what comes while a long command runs; each may be nil.
type Watch struct {
	Begin    func(Attempt) error // before anything is sent, so that it can be stored
	Progress func(sentence string)
}

func (w Watch) handlers(s *Session) psrp.Handlers {
	h := psrp.Handlers{}
	if w.Begin != nil {
		h.Begin = func(id psrp.GUID) error { return w.Begin(s.attempt(id)) }
	}
	tell := func(format string, args ...any) {
		if w.Progress != nil {
			w.Progress(fmt.Sprintf(format, args...))
		}
	}
	h.Progress = func(p psrp.Progress) {
		if p.Percent >= 0 {
			tell("%s: %s (%d %%)", p.Activity, p.Status, p.Percent)
			return
		}
		tell("%s: %s", p.Activity, p.Status)
	}
	h.Record = func(r psrp.Record) {
		if r.Stream == psrp.VerboseRecord || r.Stream == psrp.WarningRecord {
			tell("%s", r.Text)
		}
	}
	return h
}

// IsRemote reports whether err is what the endpoint itself reported.
func IsRemote(err error) bool {
	var re *psrp.RemoteError
	return errors.As(err, &re)
}
