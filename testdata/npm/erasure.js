// Sends random bytes through simulated loss by other people's ways to cross with
// animated QR codes, each with frames that fill the same code (version 20, level
// L), and prints how many frames had to be received, as one JSON array. The Go
// benchmark that starts it (shared/frame) does the same with ours.
//
// Environment: SEED, RUNS, SIZES and LOSSES (comma separated; losses in percent).
// Every run joins the sender at its first frame; "late" joins it at a random one.
'use strict';

const seed = Number(process.env.SEED || 1);
const runs = Number(process.env.RUNS || 20);
const sizes = (process.env.SIZES || '2000,6000,12000,30000').split(',').map(Number);
const losses = (process.env.LOSSES || '0,10,30,50').split(',').map(Number);
const characters = 1249; // alphanumeric, version 20, level L
const bytes = 858; // in byte mode

// mulberry32
function random(a) {
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function sample(size, next) {
  const b = Buffer.alloc(size);
  for (let i = 0; i < size; i++) b[i] = Math.floor(next() * 256);
  return b;
}

// Each peer makes a sender for the data: { k, frame(): next frame } and a receiver
// whose take(frame) is true once it has the data back.

const { UR, UREncoder, URDecoder } = require('@ngraveio/bc-ur');

function bcur(data) {
  const ur = UR.fromBuffer(data);
  let fragment = 400;
  const fits = (n) => new UREncoder(ur, n, 100000).nextPart().length <= characters; // a late part has the longest number
  while (fits(fragment + 10)) fragment += 10;
  const encoder = new UREncoder(ur, fragment);
  const decoder = new URDecoder();
  return {
    k: encoder.fragmentsLength,
    frame: async () => encoder.nextPart().toUpperCase(),
    take: async (part) => {
      decoder.receivePart(part);
      if (!decoder.isComplete()) return false;
      if (!decoder.isSuccess() || Buffer.compare(decoder.resultUR().decodeCBOR(), data) !== 0) throw new Error('bc-ur joined to something else');
      return true;
    },
  };
}

async function bbqr(data) {
  const { splitQRs, joinQRs } = await import('bbqr');
  const { parts } = splitQRs(new Uint8Array(data), 'B', { encoding: '2', minVersion: 20, maxVersion: 20 });
  const seen = new Map();
  let at = 0;
  return {
    k: parts.length,
    frame: async () => parts[at++ % parts.length],
    take: async (part) => {
      seen.set(part, true);
      if (seen.size < parts.length) return false;
      if (Buffer.compare(Buffer.from(joinQRs([...seen.keys()]).raw), data) !== 0) throw new Error('bbqr joined to something else');
      return true;
    },
  };
}

const { Encoder, Decoder } = require('qram');

async function qram(data) {
  const room = Math.floor(bytes / 4) * 3; // base64url in byte mode, as its documentation has it
  let blockSize = room;
  const header = () => Encoder.getMaxPacketSize({ size: data.length, blockSize, maxBlocksPerPacket: Math.min(50, Math.ceil(data.length / blockSize)) });
  while (blockSize + header() > room) blockSize--;
  const encoder = new Encoder({ data: new Uint8Array(data), blockSize });
  const reader = (await encoder.createReadableStream()).getReader();
  const decoder = new Decoder();
  const result = decoder.decode();
  return {
    k: encoder.blockCount,
    frame: async () => (await reader.read()).value.data,
    take: async (packet) => {
      if (!(await decoder.enqueue(packet)).done) return false;
      if (Buffer.compare(Buffer.from((await result).data), data) !== 0) throw new Error('qram joined to something else');
      return true;
    },
  };
}

async function main() {
  const out = [];
  for (const [peer, make] of [['bc-ur', bcur], ['bbqr', bbqr], ['qram', qram]]) {
    for (const size of sizes) {
      for (const loss of losses) {
        for (const late of [false, true]) {
          let received = 0;
          let k = 0;
          for (let run = 0; run < runs; run++) {
            const next = random(seed * 1000003 + size * 101 + loss * 7 + run);
            Math.random = next; // qram draws from it
            const p = await make(sample(size, next));
            k = p.k;
            for (let skip = late ? Math.floor(next() * 4 * k) : 0; skip > 0; skip--) await p.frame();
            for (let done = false; !done; ) {
              const frame = await p.frame();
              if (next() * 100 < loss) continue;
              received++;
              done = await p.take(frame);
            }
          }
          out.push({ peer, size, loss, late, k, received: received / runs });
        }
      }
    }
  }
  console.log(JSON.stringify(out));
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
