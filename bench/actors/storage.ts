import { Buffer } from 'node:buffer'
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { batchesOf } from './batches-of.ts'

const PAGE_BYTES = 4_096

/** What the machine can do at best, measured with nothing of Posthorn in between. */
export class Storage {
  /** Appends a page and makes it durable, so many times. Resolves with what each took, in milliseconds. */
  async sync({ file, times }: { file: string; times: number }): Promise<number[]> {
    const descriptor = openSync(file, 'w')
    const page = Buffer.alloc(PAGE_BYTES, 'x')
    const durationsMs: number[] = []
    for (let count = 0; count < times; count++) {
      const startedAtMs = performance.now()
      writeSync(descriptor, page)
      fdatasyncSync(descriptor)
      durationsMs.push(performance.now() - startedAtMs)
    }
    closeSync(descriptor)
    return durationsMs
  }

  /** Writes batches, one durable commit each, then reads and parses them; both in messages per second. */
  async batches({ file, messages }: { file: string; messages: number }) {
    const database = new DatabaseSync(file)
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    database.exec('CREATE TABLE batches (batch_id INTEGER PRIMARY KEY, count INTEGER, data BLOB)')
    const publishPerSecond = perSecond(messages, () => writeBatches(database, messages))
    const readPerSecond = perSecond(messages, () => readBatches(database))
    database.close()
    return { publishPerSecond, readPerSecond }
  }
}

function writeBatches(database: DatabaseSync, messages: number): void {
  const insert = database.prepare('INSERT INTO batches (count, data) VALUES (?, ?)')
  for (const { count, data } of batchesOf(messages)) insert.run(count, Buffer.from(data))
}

function readBatches(database: DatabaseSync): void {
  const read = database.prepare('SELECT data FROM batches WHERE batch_id = ?')
  for (let id = 1; ; id++) {
    const row = read.get(id)
    if (row === undefined) return
    const { buffer, byteOffset, byteLength } = row.data as Uint8Array
    JSON.parse(Buffer.from(buffer, byteOffset, byteLength).toString('utf8'))
  }
}

function perSecond(messages: number, work: () => void): number {
  const startedAtMs = performance.now()
  work()
  return (messages * 1_000) / (performance.now() - startedAtMs)
}
