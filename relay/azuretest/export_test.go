package azuretest

// ActivationSigner lets the tests check a signature that nobody else can.
var ActivationSigner = activationSigner
