// Reads QR codes in grey bitmaps (PGM) with zxing-wasm, as one of the peers of
// "go test -bench Camera ./shared/frame/scan" and of the tests of our renderings.
//
// It takes file names, one a line, on standard input, and prints for each a line of
// JSON: {"file", "ms", "texts"}; ms is the processor's time of the call alone.
"use strict";
const fs = require("fs");
const path = require("path");
const { prepareZXingModule, readBarcodes } = require("zxing-wasm/reader");

function picture(file) {
  const b = fs.readFileSync(file);
  const header = /^P5\s+(\d+)\s+(\d+)\s+255\s/.exec(b.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error(`${file} is not a grey bitmap`);
  const width = Number(header[1]), height = Number(header[2]);
  const grey = b.subarray(header[0].length);
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = grey[i];
    data[4 * i + 3] = 255;
  }
  return { data, width, height, colorSpace: "srgb" };
}

(async () => {
  const wasm = path.join(__dirname, "node_modules/zxing-wasm/dist/reader/zxing_reader.wasm");
  await prepareZXingModule({ overrides: { wasmBinary: fs.readFileSync(wasm) }, fireImmediately: true });
  const options = { formats: ["QRCode"], tryHarder: true, tryInvert: true, tryRotate: true, maxNumberOfSymbols: 1 };
  for (const file of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
    const image = picture(file);
    const start = process.cpuUsage();
    const results = await readBarcodes(image, options);
    const used = process.cpuUsage(start);
    console.log(JSON.stringify({ file, ms: (used.user + used.system) / 1000, texts: results.filter((r) => r.isValid).map((r) => r.text) }));
  }
})().catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
