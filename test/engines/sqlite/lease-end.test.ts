/** What the event loop knows of the end of its leases, without asking the writer. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { newFile } from './bench.ts'
import { LEASE_MS, START_MS, Stage } from './stage.ts'

function endSessions(file: string): void {
  const database = new DatabaseSync(file, { timeout: 5_000 })
  database.exec('DELETE FROM posthorn_sessions')
  database.close()
}

describe('the end of the leases', { concurrency: 2 }, () => {
  test('is known from the first source on, and moves with each renewal', (context) => {
    const stage = Stage.ready(context, newFile(context))
    assert.equal(stage.liveness.leasedUntilMs, START_MS + LEASE_MS)
    stage.nowMs += LEASE_MS / 2
    assert.equal(stage.liveness.leasedUntilMs, START_MS + LEASE_MS)
    stage.writer.turn([])
    assert.equal(stage.liveness.leasedUntilMs, START_MS + LEASE_MS * 1.5)
  })

  test('stays where it was when the session is lost, until the event loop has heard of that', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file)
    stage.append('a')
    assert.equal(stage.pull().length, 1)
    endSessions(file)
    for (let turn = 0; turn < 3; turn++) {
      stage.nowMs += LEASE_MS
      stage.writer.turn([])
    }
    assert.equal(stage.liveness.leasedUntilMs, START_MS + LEASE_MS)
    const lost = stage.turns.flatMap((turn) => turn.lost ?? [])
    assert.deepEqual(
      lost.map(({ leasedUntilMs, held }) => [leasedUntilMs, held.length]),
      [[START_MS + 2 * LEASE_MS, 1]],
    )
    stage.liveness.noteLoss(START_MS + 2 * LEASE_MS)
    stage.nowMs += LEASE_MS
    stage.writer.turn([])
    assert.equal(stage.liveness.leasedUntilMs, stage.nowMs + LEASE_MS)
  })
})
