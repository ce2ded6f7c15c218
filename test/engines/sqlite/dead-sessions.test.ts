/** A process that died is not kept alive by those who hold the lock of the file again and again. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HandlerConnection } from '../../../src/engines/sqlite/handler-connection.ts'
import { Indulgence } from '../../../src/engines/sqlite/writer/indulgence.ts'
import { newFile, sql } from './bench.ts'
import { LEASE_MS, START_MS, Stage } from './stage.ts'

describe('a session that ran out while transactions of handlers held the lock', { concurrency: 2 }, () => {
  test('is prolonged after ten of them at most, and again once it was renewed', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file)
    const connection = new HandlerConnection({ file })
    context.after(() => connection.close())
    const until = () => Number(sql(file, 'SELECT lease_until_ms AS until FROM posthorn_sessions')[0]!.until)
    const prolongedUntil = (times: number) => {
      const startMs = until()
      for (let time = 1; time <= times; time++) connection.prolongSessions(startMs + time)
      return until() - startMs
    }
    assert.equal(prolongedUntil(10), 10)
    assert.equal(prolongedUntil(5), 0)
    stage.nowMs += LEASE_MS / 2
    stage.writer.turn([])
    assert.equal(until(), START_MS + LEASE_MS * 1.5)
    assert.equal(prolongedUntil(15), 10)
  })

  for (const everyMs of [50, 1_000]) {
    test(`is spared five times by those who wait for the lock every ${everyMs} ms, until it is renewed`, () => {
      const indulgence = new Indulgence()
      let nowMs = 0
      const sparedMs = () => {
        const startMs = nowMs
        for (; nowMs < startMs + 60_000; nowMs += everyMs) {
          indulgence.note([1])
          indulgence.begin(nowMs)
          if (!indulgence.spares(1, nowMs)) break
        }
        return nowMs - startMs
      }
      const patienceMs = 5 * Math.max(500, everyMs)
      assert.equal(sparedMs(), patienceMs)
      indulgence.note([])
      nowMs += 1_000
      assert.equal(sparedMs(), patienceMs)
    })
  }

  test('is spared for half a second after the last wait', () => {
    const indulgence = new Indulgence()
    indulgence.note([1])
    indulgence.begin(0)
    indulgence.begin(400)
    assert.deepEqual([indulgence.spares(1, 899), indulgence.spares(1, 900)], [true, false])
  })
})
