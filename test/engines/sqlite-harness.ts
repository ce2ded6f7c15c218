import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { abandonSqliteEngine, connectSqlite } from '../../src/engines/sqlite/index.ts'
import type { ConformanceHarness } from '../conformance/index.ts'

const fileOf = (store: string) => store.slice('sqlite:'.length)

// One letter of the batch's text becomes another one, as if bits of the file had flipped; it is still JSON.
const DAMAGE_FIRST_BATCH = `
UPDATE posthorn_batches SET data = replace(data, '"time"', '"tyme"')
 WHERE partition = 0 AND topic_id = (SELECT topic_id FROM posthorn_topics WHERE name = ?)
   AND base_offset = (SELECT min(base_offset) FROM posthorn_batches AS others
                       WHERE others.topic_id = posthorn_batches.topic_id AND others.partition = 0)`

export const sqliteHarness: ConformanceHarness = {
  capabilities: { durable: true, multiProcess: true, transactionalAppend: true },
  newStore: async () => `sqlite:${join(await mkdtemp(join(tmpdir(), 'posthorn-conformance-')), 'store.db')}`,
  removeStore: (store) => rm(dirname(fileOf(store)), { recursive: true, force: true }),
  open: (store, options) => connectSqlite(store, options),
  crash: abandonSqliteEngine,
  corrupt: async (store, topic) => {
    using database = new DatabaseSync(fileOf(store))
    const { changes } = database.prepare(DAMAGE_FIRST_BATCH).run(topic)
    if (changes !== 1) throw new Error(`${changes} batches were damaged, not one`)
  },
}
