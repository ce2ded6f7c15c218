import { Buffer } from 'node:buffer'
import type { Client } from 'pg'
import { batchesOf } from './batches-of.ts'
import { openSession } from './postgres-session.ts'

/** What one session of the server can do at best, with nothing of Posthorn in between. */
export class PostgresStorage {
  /** Writes batches, one durable commit each, then reads and parses them; both in messages per second. */
  async batches({ url, messages }: { url: string; messages: number }) {
    const client = await openSession(url)
    await client.query('CREATE TABLE bench_batches (batch_id integer PRIMARY KEY, count integer, data text)')
    await client.query('ALTER TABLE bench_batches ALTER COLUMN data SET STORAGE EXTERNAL')
    const publishPerSecond = await perSecond(messages, () => writeBatches(client, messages))
    const readPerSecond = await perSecond(messages, () => readBatches(client))
    await client.end()
    return { publishPerSecond, readPerSecond }
  }
}

async function writeBatches(client: Client, messages: number): Promise<void> {
  const text = 'INSERT INTO bench_batches (batch_id, count, data) VALUES ($1, $2, $3)'
  let id = 1
  for (const { count, data } of batchesOf(messages)) {
    await client.query({ name: 'insert', text, values: [id++, count, Buffer.from(data)] })
  }
}

async function readBatches(client: Client): Promise<void> {
  const text = 'SELECT data FROM bench_batches WHERE batch_id = $1'
  for (let id = 1; ; id++) {
    const { rows } = await client.query<{ data: string }>({ name: 'read', text, values: [id] })
    if (rows.length === 0) return
    JSON.parse(rows[0]!.data)
  }
}

async function perSecond(messages: number, work: () => Promise<void>): Promise<number> {
  const startedAtMs = performance.now()
  await work()
  return (messages * 1_000) / (performance.now() - startedAtMs)
}
