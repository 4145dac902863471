// Opens a brain with the real AgentOS and prints, as one line of JSON, what an agent would see.
//
// Usage: node harness.mjs '{"path": ..., "brain_id": ..., "dims": 32, "now": ms,
//   "queries": [...], "remember": {"content": ..., "tags": [...], "embedding": [...]}}'
// Recall writes to the brain (it counts each access), so give it a copy.

import { createHash } from 'node:crypto';
import { Brain, Memory } from '@framers/agentos/cognition/memory';

const request = JSON.parse(process.argv[2]);
console.log = console.error; // stdout is for the answer alone
if (request.now) Date.now = () => request.now; // strength depends on the clock

// Every vector as the package itself decodes it: one digest a table, over ids and float32 bits.
async function vectors(brain) {
  const digests = {};
  for (const [table, column] of [
    ['memory_traces', 'embedding'],
    ['knowledge_nodes', 'embedding'],
    ['document_images', 'embedding'],
    ['prospective_items', 'cue_embedding'],
  ]) {
    const rows = await brain.all(
      `SELECT id, ${column} AS cell FROM ${table} WHERE ${column} IS NOT NULL ORDER BY id`,
    );
    const hash = createHash('sha256');
    for (const { id, cell } of rows) {
      hash.update(`${id}:`).update(Buffer.from(new Float32Array(brain.features.blobCodec.decode(cell)).buffer));
    }
    digests[table] = { count: rows.length, sha256: hash.digest('hex') };
  }
  return digests;
}

async function look() {
  const answer = {};
  const brain = await Brain.openSqlite(request.path, { brainId: request.brain_id });
  answer.schema_version = await brain.getMeta('schema_version');
  answer.vectors = await vectors(brain);
  await brain.close();

  const embeddings = request.remember?.embedding;
  const memory = await Memory.createSqlite(request.path, {
    brainId: request.brain_id,
    embeddings: { dimensions: request.dims },
    ...(embeddings ? { embed: async () => embeddings } : {}),
  });
  answer.health = await memory.health();
  answer.hits = {};
  for (const query of request.queries ?? []) {
    const hits = await memory.recall(query, { limit: request.limit ?? 10 });
    answer.hits[query] = hits.map(({ trace, score }) => ({ id: trace.id, score, content: trace.content }));
  }
  if (request.remember) {
    const { content, tags } = request.remember;
    const trace = await memory.remember(content, { tags });
    await memory.feedback(trace.id, 'used', content);
    const again = await memory.recall(content, { limit: 1 });
    answer.remembered = { id: trace.id, recalled: again[0]?.trace.id ?? null };
  }
  if (request.consolidate) answer.consolidated = await memory.consolidate();
  await memory.close();
  return answer;
}

look().then(
  (answer) => process.stdout.write(JSON.stringify(answer)),
  (error) => {
    process.stdout.write(JSON.stringify({ error: String(error?.message ?? error) }));
    process.exitCode = 1;
  },
);
