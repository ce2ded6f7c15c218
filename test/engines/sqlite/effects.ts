/** What the tests of transactional handlers share: a table of the user's, and a message to be handled. */
import type { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'
import type { Grant, TopicConfig } from '../../../src/engine.ts'
import { Bench, newFile, sql } from './bench.ts'

export async function prepared(context: TestContext, config: Partial<TopicConfig> & { leaseMs?: number } = {}) {
  const file = newFile(context)
  const bench = await Bench.make(context, file, config)
  sql(file, 'CREATE TABLE effects (id INTEGER PRIMARY KEY, name TEXT)')
  return { bench, file }
}

export async function leased(
  context: TestContext,
  data: readonly unknown[],
  config: Partial<TopicConfig> & { leaseMs?: number } = {},
) {
  const { bench, file } = await prepared(context, config)
  await bench.publish(data)
  const reader = await bench.source()
  const [grant] = (await reader.pull()) as [Grant]
  return { bench, file, reader, grant }
}

export function topic(name: string): TopicConfig {
  const retention = { maxAgeMs: 60_000, dropUnread: false }
  return { topic: name, kind: 'topic', partitions: 1, deduplicationWindowMs: 60_000, retention }
}

export function insert(transaction: unknown, name: string): void {
  ;(transaction as DatabaseSync).prepare('INSERT INTO effects (name) VALUES (?)').run(name)
}

export function write(name: string): (transaction: unknown) => Promise<void> {
  return async (transaction) => insert(transaction, name)
}

export function effects(file: string): unknown[] {
  return sql(file, 'SELECT name FROM effects ORDER BY id').map(({ name }) => name)
}

export function leases(file: string): number {
  return sql(file, 'SELECT * FROM posthorn_leases').length
}
