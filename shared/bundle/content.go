package bundle

import "time"

// What the agent asks for, and what the answer reports.
const (
	Register   = "register"   // register the token, fetch the activation key
	Unregister = "unregister" // the stamp is deactivated; delete the registration
	Renew      = "renew"      // both, in one crossing
)

// Request asks the relay for something. The payload is the registration token,
// exactly as cleaned; it is empty for [Unregister].
type Request struct {
	Label                  string // the agent's name for itself
	Operation              string // Register, Unregister or Renew
	CloudID                string // of the stamp; usually a GUID
	StampVersion           string // four parts, or ""
	Nodes                  int    // 0 when unknown
	BillingModel           string // Capacity, Development, Custom, …
	AgreementNumber        string
	UsageReporting         *bool
	MarketplaceSyndication *bool
	MsAssetTag             string
	TokenVersion           string // 3.0, 4.0, 6.0, or "" when the file does not say
	TokenSHA256            Digest // of the payload
	ExpectSubscription     string // GUID; the answer must name it; "" when any will do
	ExpectResourceGroup    string
	ExpectRegistration     string // the registration's name
	Note                   string
	Card                   []byte // the agent's card in wire spelling, or nothing
}

// Kind returns [KindRequest].
func (*Request) Kind() Kind { return KindRequest }

func (r *Request) bind(f fields) {
	f.text("label", &r.Label)
	f.oneOf("operation", &r.Operation, Register, Unregister, Renew)
	f.text("cloud-id", &r.CloudID)
	f.text("stamp-version", &r.StampVersion)
	f.count("nodes", &r.Nodes)
	f.text("billing-model", &r.BillingModel)
	f.text("agreement-number", &r.AgreementNumber)
	f.flag("usage-reporting", &r.UsageReporting)
	f.flag("marketplace-syndication", &r.MarketplaceSyndication)
	f.text("ms-asset-tag", &r.MsAssetTag)
	f.text("token-version", &r.TokenVersion)
	f.digest("token-sha256", &r.TokenSHA256)
	f.text("expect-subscription", &r.ExpectSubscription)
	f.text("expect-resource-group", &r.ExpectResourceGroup)
	f.text("expect-registration", &r.ExpectRegistration)
	f.text("note", &r.Note)
	f.bytes("card", &r.Card)
}

// Answer reports what the relay did. The payload is the activation key; it is
// empty for [Unregister].
type Answer struct {
	Label          string // the relay's name for itself
	Operation      string
	CloudID        string
	Cloud          string // AzureCloud, AzureUSGovernment, AzureChinaCloud, custom
	Tenant         string
	Subscription   string
	ResourceGroup  string
	Registration   string    // name
	RegistrationID string    // the whole Resource Manager id
	BillingModel   string    // as Resource Manager reads it back
	KeyExpires     string    // as the key spells it: seven digits of fraction, year 9999
	KeySHA256      Digest    // of the payload
	Locked         *bool     // whether the CanNotDelete lock stands
	RequestCreated time.Time // the request's two times, on the agent's clock
	RequestExpires time.Time
	Received       time.Time // when the relay first saw the request, on its own clock
	Note           string
}

// Kind returns [KindAnswer].
func (*Answer) Kind() Kind { return KindAnswer }

func (a *Answer) bind(f fields) {
	f.text("label", &a.Label)
	f.oneOf("operation", &a.Operation, Register, Unregister, Renew)
	f.text("cloud-id", &a.CloudID)
	f.text("cloud", &a.Cloud)
	f.text("tenant", &a.Tenant)
	f.text("subscription", &a.Subscription)
	f.text("resource-group", &a.ResourceGroup)
	f.text("registration", &a.Registration)
	f.text("registration-id", &a.RegistrationID)
	f.text("billing-model", &a.BillingModel)
	f.text("key-expires", &a.KeyExpires)
	f.digest("key-sha256", &a.KeySHA256)
	f.flag("locked", &a.Locked)
	f.time("request-created", &a.RequestCreated)
	f.time("request-expires", &a.RequestExpires)
	f.time("received", &a.Received)
	f.text("note", &a.Note)
}

// The outcomes that a receipt reports.
const (
	OutcomeWritten = "written" // the activation key was written to a file for the official cmdlet
	OutcomeApplied = "applied" // the stamp accepted the activation key
)

// Receipt tells the relay that its answer was used. There is no payload.
type Receipt struct {
	Label     string
	Outcome   string // OutcomeWritten or OutcomeApplied
	CloudID   string
	Applied   time.Time // the agent's clock
	KeySHA256 Digest
	Journal   Digest // head of the agent's journal when the answer was used
	Note      string
}

// Kind returns [KindReceipt].
func (*Receipt) Kind() Kind { return KindReceipt }

func (r *Receipt) bind(f fields) {
	f.text("label", &r.Label)
	f.oneOf("outcome", &r.Outcome, OutcomeWritten, OutcomeApplied)
	f.text("cloud-id", &r.CloudID)
	f.time("applied", &r.Applied)
	f.digest("key-sha256", &r.KeySHA256)
	f.digest("journal", &r.Journal)
	f.text("note", &r.Note)
}

// The two sides of the gap.
const (
	RoleAgent = "agent"
	RoleRelay = "relay"
)

// Card introduces one side to the other. It is self-signed and stands in clear;
// there is no payload.
type Card struct {
	Role       string // RoleAgent or RoleRelay
	Label      string
	Key        []byte   // SSH public key, wire encoding (RFC 4253 §6.6)
	Recipients []string // age recipients, at least one
	Approvers  []string // fingerprints of keys that may approve
}

// Kind returns [KindPairing].
func (*Card) Kind() Kind { return KindPairing }

func (c *Card) bind(f fields) {
	f.oneOf("role", &c.Role, RoleAgent, RoleRelay)
	f.text("label", &c.Label)
	f.bytes("key", &c.Key)
	f.list("recipients", &c.Recipients)
	f.list("approvers", &c.Approvers)
}

// Rekey carries a new card to a peer that has pinned the old one. The bundle is
// signed by the old key first and the new key second. There is no payload.
type Rekey struct {
	Card []byte // the new card in wire spelling
}

// Kind returns [KindRekey].
func (*Rekey) Kind() Kind { return KindRekey }

func (r *Rekey) bind(f fields) { f.bytes("card", &r.Card) }
