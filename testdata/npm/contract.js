// Runs Microsoft's own client @azure/arm-azurestack (api-version 2017-06-01)
// through a registration against a simulated Azure, and prints what the client
// made of each answer as one JSON object. The Go test that starts it judges.
//
// Environment: ARM, AUTHORITY, TENANT, SUBSCRIPTION, CLIENT_ID, CLIENT_SECRET,
// TOKEN, OTHER_TOKEN, and NODE_EXTRA_CA_CERTS for the CA.
'use strict';
const { AzureStackManagementClient } = require('@azure/arm-azurestack');
const env = process.env;

async function getToken() {
  const res = await fetch(`${env.AUTHORITY}${env.TENANT}/oauth2/v2.0/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: env.CLIENT_ID,
      client_secret: env.CLIENT_SECRET,
      scope: `${env.ARM}/.default`,
    }),
  });
  const body = await res.json();
  if (!res.ok) throw new Error(body.error_description);
  return { token: body.access_token, expiresOnTimestamp: Date.now() + body.expires_in * 1000 };
}

// attempt gives the status with what the client decoded, or its error's code.
async function attempt(call) {
  try {
    const out = await call();
    const decoded = Object.assign({}, out);
    delete decoded._response;
    return { status: out._response.status, body: Array.isArray(out) ? Array.from(out) : decoded };
  } catch (err) {
    if (err.statusCode === undefined) throw err;
    return { status: err.statusCode, code: err.code, message: err.body && err.body.message };
  }
}

async function main() {
  const client = new AzureStackManagementClient({ getToken }, env.SUBSCRIPTION, {
    baseUri: env.ARM,
    noRetryPolicy: true,
  });
  const reg = client.registrations;
  const put = (name, registrationToken) => reg.createOrUpdate('azurestack', name, { location: 'global', registrationToken });
  const out = {};
  out.absent = await attempt(() => reg.get('azurestack', 'stamp'));
  out.created = await attempt(() => put('stamp', env.TOKEN));
  out.updated = await attempt(() => put('stamp', env.TOKEN));
  out.patched = await attempt(() => reg.update('azurestack', 'stamp', { location: 'global', registrationToken: env.TOKEN }));
  out.otherStamp = await attempt(() => put('stamp', env.OTHER_TOKEN));
  out.sameStamp = await attempt(() => put('second', env.TOKEN));
  out.malformed = await attempt(() => put('third', 'bm90IGEgdG9rZW4='));
  out.get = await attempt(() => reg.get('azurestack', 'stamp'));
  out.list = await attempt(() => reg.list('azurestack'));
  out.key = await attempt(() => reg.getActivationKey('azurestack', 'stamp'));
  out.noGroup = await attempt(() => reg.list('nowhere'));
  out.deleted = await attempt(() => reg.deleteMethod('azurestack', 'stamp'));
  out.deletedAgain = await attempt(() => reg.deleteMethod('azurestack', 'stamp'));
  console.log(JSON.stringify(out));
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
