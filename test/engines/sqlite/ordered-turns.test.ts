/** What turns of the writer do for ordered subscriptions, and what they leave. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import type { LeaseId } from '../../../src/engine.ts'
import type { Command } from '../../../src/engines/sqlite/protocol.ts'
import { StatementCache } from '../../../src/engines/sqlite/store/file/connection.ts'
import { packGroup } from '../../../src/engines/sqlite/wire-group.ts'
import { failure, newGroup, newMessage } from '../../conformance/messages.ts'
import { HERE, newFile, sql } from './bench.ts'
import { type Call, pullOf, START_MS, Stage } from './stage.ts'

function settle(stage: Stage, lease: LeaseId, exceptions: readonly object[]): void {
  const settlements = [{ lease, acked: [], exceptions }]
  assert.ok('value' in stage.call({ kind: 'settle', source: 1, settlements } as unknown as Call))
}

/** With the messages 0, 1, ... of the key `k`. */
function readyWith(test: TestContext, file: string, messages: number): Stage {
  const stage = Stage.ready(test, file, { ordered: true })
  for (let number = 0; number < messages; number++) stage.append(number, { key: 'k' })
  return stage
}

describe('a turn for an ordered subscription', { concurrency: 2 }, () => {
  test('does not ask for the lock for what has to wait for its key', (context) => {
    for (const first of ['retry', 'dead'] as const) {
      const file = newFile(context)
      const stage = readyWith(context, file, 2)
      const [grant] = stage.pull()
      const outcome = first === 'retry' ? { dueAtMs: START_MS + 1e9 } : { reason: 'attempts', blocks: true }
      const problem = failure(1, START_MS, 'no')
      settle(stage, grant!.lease, [
        { offset: 0, kind: first, key: 'k', failure: problem, ...outcome },
        { offset: 1, kind: 'park', until: 'chain', key: 'k' },
      ])
      // As it is once it came back from somebody's hands.
      sql(file, 'UPDATE posthorn_retries SET due_at_ms = 0, parked = 0 WHERE offset = 1')
      using rival = new DatabaseSync(file)
      rival.exec('BEGIN IMMEDIATE')
      stage.writer.turn([pullOf(2)])
      assert.deepEqual(
        stage.turns.flatMap(({ grants }) => grants).filter(({ pull }) => pull === 2),
        [],
        first,
      )
    }
  })

  test('looks as often at the file, however many partitions there are', (context) => {
    const statements = [8, 64].map((partitions) => {
      const stage = Stage.ready(context, newFile(context), { ordered: true, partitions })
      stage.writer.turn([pullOf(1)])
      const calls = (['run', 'get', 'all'] as const).map((name) => context.mock.method(StatementCache.prototype, name))
      stage.append('a', { key: 'k' })
      const count = calls.reduce((sum, { mock }) => sum + mock.callCount(), 0)
      for (const { mock } of calls) mock.restore()
      assert.equal(stage.granted(1).length, 1)
      return count
    })
    assert.equal(statements[0], statements[1])
  })

  test('grants again, and tells again, what a pull was granted that had been given up', (context) => {
    const stage = readyWith(context, newFile(context), 2)
    const [held] = stage.pull()
    const exceptions = [0, 1].map((offset) => ({
      offset,
      kind: 'park',
      until: offset === 0 ? 1e15 : 'chain',
      key: 'k',
    }))
    settle(stage, held!.lease, exceptions)
    stage.writer.turn([{ kind: 'closeSource', source: 1, call: 0 }])
    stage.call({ kind: 'openSource', source: 1, options: { ...HERE, limits: [] } } as Call)
    const chains = JSON.stringify([{ key: 'k', firstOffset: 0, lastOffset: 1 }])
    stage.append(2, { key: 'other' })
    stage.append(3, { key: 'other' })
    stage.writer.turn([{ ...pullOf(2), messagesMax: 1 } as Command])
    stage.writer.turn([{ kind: 'unpull', source: 1, pull: 2 }, pullOf(3)])
    const [unseen] = stage.granted(2)
    const [again] = stage.granted(3)
    for (const { takeover } of [unseen!, again!]) assert.equal(JSON.stringify(takeover), chains)
    assert.deepEqual(again!.segments, unseen!.segments, 'the message that nobody saw, before the next one')
    assert.notEqual(again!.lease, unseen!.lease)
  })
  test('grants what came back in the order of the offsets, though one range lies within another', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file, { ordered: true })
    const { group } = packGroup(newGroup([0, 1, 2, 3].map((data) => newMessage(data, START_MS, { key: 'k' }))), 1, 0)
    stage.call({ kind: 'append', groups: [group] } as unknown as Call)
    settle(stage, stage.pull()[0]!.lease, [{ offset: 1, kind: 'release' }])
    sql(file, 'UPDATE posthorn_leases SET session_id = NULL')
    const granted = [2, 3, 4].flatMap((pull) => {
      stage.writer.turn([pullOf(pull)])
      return stage.granted(pull).flatMap(({ segments }) => segments.map(({ from, to }) => [from, to]))
    })
    assert.deepEqual(granted, [
      [0, 1],
      [1, 2],
      [2, 4],
    ])
  })
})
