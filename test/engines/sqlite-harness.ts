import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { abandonSqliteEngine, connectSqlite } from '../../src/engines/sqlite/index.ts'
import type { ConformanceHarness, UserDatabase } from '../conformance/index.ts'

const BUSY_MS_MAX = 5_000

const fileOf = (store: string) => store.slice('sqlite:'.length)

// One letter of the batch's text becomes another one, as if bits of the file had flipped; it is still JSON.
const DAMAGE_FIRST_BATCH = `
UPDATE posthorn_batches SET data = replace(data, '"time"', '"tyme"')
 WHERE partition = 0 AND topic_id = (SELECT topic_id FROM posthorn_topics WHERE name = ?)
   AND base_offset = (SELECT min(base_offset) FROM posthorn_batches AS others
                       WHERE others.topic_id = posthorn_batches.topic_id AND others.partition = 0)`

export const sqliteHarness: ConformanceHarness = {
  capabilities: { durable: true, multiProcess: true, transactionalAppend: true, transactionalHandlers: true },
  newStore: async () => `sqlite:${join(await mkdtemp(join(tmpdir(), 'posthorn-conformance-')), 'store.db')}`,
  removeStore: (store) => rm(dirname(fileOf(store)), { recursive: true, force: true }),
  open: (store, options) => connectSqlite(store, options),
  crash: abandonSqliteEngine,
  corrupt: async (store, topic) => {
    using database = new DatabaseSync(fileOf(store))
    const { changes } = database.prepare(DAMAGE_FIRST_BATCH).run(topic)
    if (changes !== 1) throw new Error(`${changes} batches were damaged, not one`)
  },
  userDatabase: async (store) => openUserDatabase(fileOf(store)),
}

function openUserDatabase(file: string): UserDatabase {
  const database = new DatabaseSync(file, { timeout: BUSY_MS_MAX })
  database.exec('CREATE TABLE user_values (value_id INTEGER PRIMARY KEY, value TEXT NOT NULL)')
  return {
    write: async (transaction, value) => {
      if (!(transaction instanceof DatabaseSync)) throw new TypeError('the transaction is no connection')
      transaction.prepare('INSERT INTO user_values (value) VALUES (?)').run(value)
    },
    values: async () => {
      const rows = database.prepare('SELECT value FROM user_values ORDER BY value_id').all()
      return rows.map(({ value }) => String(value))
    },
    close: async () => database.close(),
  }
}
