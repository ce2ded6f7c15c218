/** Another process on the store: runs a transactional handler for every message, until it is killed. */
import type { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { connectSqlite } from '../../../../src/engines/sqlite/index.ts'
import { silentLogger, systemEnvironment } from '../../../../src/environment/index.ts'
import { SUBSCRIPTION, TOPIC } from '../../../conformance/messages.ts'

const [, , file = '', leaseMs = ''] = process.argv
const environment = { ...systemEnvironment, logger: silentLogger }
const engine = await connectSqlite(`sqlite:${file}`, { environment, leaseMs: Number(leaseMs) })
const source = await engine.openSource({
  topic: TOPIC,
  subscription: SUBSCRIPTION,
  handlerTimeoutMs: 60_000,
  limits: [],
  onCancelled() {},
  onSurplus() {},
  onLeasesLost() {},
  onDamage() {},
})
process.on('disconnect', () => process.exit(0))
for (;;) {
  const grants = await source.pull({ messagesMax: 20, bytesMax: 2 ** 20 }, AbortSignal.timeout(60_000))
  for (const { lease, messages } of grants) {
    for (const { offset, event } of messages) {
      const outcome = await source.transact(lease, offset, async (transaction) => {
        const database = transaction as DatabaseSync
        database.prepare('INSERT INTO effects (name) VALUES (?)').run(String(event.data))
        await setImmediate()
        database.prepare('UPDATE totals SET total = total + 1').run()
      })
      process.send?.(outcome)
    }
  }
}
