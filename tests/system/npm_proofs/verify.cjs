// Verifies proofs of a book with programs from npm, which are not ours. Reads JSON from stdin and answers in JSON.
//
//   node verify.cjs FOLDER-OF-PACKAGES < {vkey, checkpoint, size, roots: {size: hex},
//     inclusion: {index: {entry: base64, hashes: [hex]}}, consistency: {old size: [hex]}}
//
// @transmute/rfc9162 knows inclusion and consistency. @sigstore/verify checks what Sigstore's own log says: the
// checkpoint with its signature, and inclusion.
"use strict";

const { createPublicKey } = require("node:crypto");
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");

const packages = createRequire(`${process.argv[2]}/`);
const transmute = packages("@transmute/rfc9162").default;
const { verifyCheckpoint } = packages("@sigstore/verify/dist/tlog/checkpoint.js");
const { verifyMerkleInclusion } = packages("@sigstore/verify/dist/tlog/merkle.js");

const bytes = (hex) => new Uint8Array(Buffer.from(hex, "hex"));

// The log as Sigstore names it: the key id of the note is the beginning of what it calls the id of the log.
function logOf(vkey) {
  const [name, id, key] = vkey.trim().split(/\+(.{8})\+/);
  const prefix = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410: what precedes an Ed25519 key in DER
  const der = Buffer.concat([prefix, Buffer.from(key, "base64").subarray(1)]);
  const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
  return { logID: Buffer.from(id, "hex"), baseURL: name, publicKey };
}

async function main() {
  const asked = JSON.parse(readFileSync(0, "utf-8"));
  const envelope = asked.checkpoint;
  const checkpoint = verifyCheckpoint({ inclusionProof: { checkpoint: { envelope } } }, [logOf(asked.vkey)]);
  if (Number(checkpoint.logSize) !== asked.size) throw new Error("the checkpoint is of another size");
  const root = new Uint8Array(checkpoint.logHash);
  const told = { inclusion: 0, consistency: 0 };
  for (const [index, { entry, hashes }] of Object.entries(asked.inclusion)) {
    const content = Buffer.from(entry, "base64");
    verifyMerkleInclusion(
      {
        inclusionProof: { logIndex: index, hashes: hashes.map((hash) => Buffer.from(hash, "hex")) },
        canonicalizedBody: content,
      },
      checkpoint,
    );
    const leaf = await transmute.leaf(new Uint8Array(content));
    const proof = { log_id: "", tree_size: asked.size, leaf_index: Number(index), inclusion_path: hashes.map(bytes) };
    if (!(await transmute.verifyInclusionProof(root, leaf, proof))) throw new Error(`entry ${index} is not included`);
    told.inclusion += 1;
  }
  for (const [old, hashes] of Object.entries(asked.consistency)) {
    const first = bytes(asked.roots[old]);
    // This package leaves out step 2 of RFC 9162 s2.1.4.2: where the old size is a power of two, the old root begins the path.
    const whole = Number.isInteger(Math.log2(Number(old)));
    const path = whole ? [first, ...hashes.map(bytes)] : hashes.map(bytes);
    const proof = { log_id: "", tree_size_1: Number(old), tree_size_2: asked.size, consistency_path: path };
    if (!(await transmute.verifyConsistencyProof(first, root, proof))) throw new Error(`size ${old} is not continued`);
    told.consistency += 1;
  }
  process.stdout.write(JSON.stringify(told));
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
