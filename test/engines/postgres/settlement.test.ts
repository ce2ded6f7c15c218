import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { SettledException, Settlement } from '../../../src/engine.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { eventAt, failure, openWorld, type SettlementWorld, SOURCE } from './settlement-world.ts'

const ODD_KEY = 'k\u0000\\u0000\ud800'

function settle(world: SettlementWorld, ...settlements: readonly Settlement[]): Promise<readonly number[]> {
  return world.turn((turn) => world.settling.settle(turn, SOURCE, settlements))
}

function retry(offset: number, dueAtMs: number, key?: string): SettledException {
  return { offset, kind: 'retry', dueAtMs, failure: failure(1), ...(key !== undefined && { key }) }
}

/** Sets `[0, count)` of one key aside, and lets them go together: each is then leased by nobody. */
async function letGoTogether(world: SettlementWorld, count: number): Promise<void> {
  const lease = await world.leaseFresh(0, 0, count)
  const exceptions = Array.from({ length: count }, (_, offset) => {
    return { offset, kind: 'park', until: 'freed', key: 'k' } as const
  })
  await settle(world, { lease, acked: [], exceptions, freed: ['k'] })
}

async function dueOffsets(world: SettlementWorld): Promise<number[]> {
  const due = await world.turn((turn) => world.setAside.due(turn, 1_000, [0, 1]))
  return due.map(({ offset }) => offset)
}

describe('settlement in Postgres', { skip: await whyNoPostgres() }, () => {
  test('acknowledgements of what was never set aside touch no table', async (context) => {
    const world = await openWorld(context, { ordered: true })
    const [one, other] = [await world.leaseFresh(0, 0, 10), await world.leaseFresh(1, 0, 10)]
    const fenced = await settle(
      world,
      { lease: one, acked: [0, 10], exceptions: [] },
      { lease: other, acked: [7, 9, 0, 3, 2, 5], exceptions: [] },
    )
    assert.deepEqual(fenced, [])
    assert.deepEqual(world.statements, [])
    const { leases } = await world.state()
    assert.deepEqual(
      [...leases.values()].map(({ id, open }) => [id, open]),
      [[other, [5, 7, 9, 10]]],
    )
  })

  test('a thousand messages that fail, twice, take a handful of statements each time', async (context) => {
    const world = await openWorld(context)
    const lease = await world.leaseFresh(0, 0, 1_000)
    const nowMs = world.clock.now()
    const exceptions = Array.from({ length: 1_000 }, (_, offset) => retry(offset, nowMs))
    await settle(world, { lease, acked: [], exceptions })
    assert.ok(world.statements.length <= 3, `${world.statements}`)
    const leases = await world.leaseDue()
    assert.equal(leases.length, 1_000)
    await settle(
      world,
      ...leases.map(({ id, open }) => ({ lease: id, acked: [], exceptions: [retry(open[0]!, nowMs)] })),
    )
    assert.ok(world.statements.length <= 3, `${world.statements}`)
    const again = await world.turn((turn) => world.setAside.due(turn, 1_000))
    assert.deepEqual(new Set(again.map(({ attempt, failures }) => `${attempt} ${failures.length}`)), new Set(['3 2']))
    assert.deepEqual(again[0]!.failures, [failure(1), failure(1)])
    assert.equal((await world.state()).setAside, 1_000)
  })

  test('a thousand dead letters take a handful of statements, and keep their messages', async (context) => {
    const world = await openWorld(context)
    const lease = await world.leaseFresh(1, 0, 1_000)
    const exceptions = Array.from({ length: 1_000 }, (_, offset) => {
      return { offset, kind: 'dead', reason: 'discarded', failure: failure(1) } as const
    })
    await settle(world, { lease, acked: [], exceptions })
    assert.ok(world.statements.length <= 3, `${world.statements}`)
    const letters = await world.deadLetters.page(world.database, world.key, { limit: 2_000 })
    assert.deepEqual(
      letters.map(({ event }) => event),
      exceptions.map(({ offset }) => eventAt(1, offset)),
    )
  })

  test('what was let go behind a message that fails waits again', async (context) => {
    const world = await openWorld(context, { ordered: true })
    await letGoTogether(world, 3)
    const [first] = await world.leaseDue()
    const others = [...(await world.state()).leases.values()].slice(1)
    await world.turn((turn) => world.settling.release(turn, others))
    assert.deepEqual(await dueOffsets(world), [1, 2])
    await settle(world, { lease: first!.id, acked: [], exceptions: [retry(0, world.clock.now())] })
    assert.equal((await world.leaseDue()).length, 1)
    assert.deepEqual(await dueOffsets(world), [])
  })

  test('what comes back waits again behind a message that has failed meanwhile', async (context) => {
    const world = await openWorld(context, { ordered: true })
    await letGoTogether(world, 3)
    const [first, ...others] = await world.leaseDue()
    await settle(world, { lease: first!.id, acked: [], exceptions: [retry(0, world.clock.now() + 1_000)] })
    await world.turn((turn) => world.settling.release(turn, others))
    assert.deepEqual(await dueOffsets(world), [])
    await world.clock.advance(1_000)
    const [again] = await world.leaseDue()
    assert.deepEqual(await dueOffsets(world), [])
    await settle(world, { lease: again!.id, acked: [0, 1], exceptions: [] })
    assert.deepEqual(await dueOffsets(world), [1, 2])
  })

  test('a message that is parked after the one before it was settled waits until its key is freed', async (context) => {
    const world = await openWorld(context, { ordered: true })
    await letGoTogether(world, 2)
    const [first, second] = await world.leaseDue()
    const park = { offset: 1, kind: 'park', until: 'freed' } as const
    await settle(
      world,
      { lease: first!.id, acked: [0, 1], exceptions: [] },
      { lease: second!.id, acked: [], exceptions: [park] },
    )
    assert.deepEqual(await dueOffsets(world), [])
    await world.turn((turn) => world.chains.advance(turn, 0, ['k']))
    assert.deepEqual(await dueOffsets(world), [1])
  })

  test('a suspect that was isolated and crashed too often is buried with its history', async (context) => {
    const world = await openWorld(context, { maxCrashes: 1 })
    const lease = await world.leaseFresh(0, 0, 1)
    await settle(world, { lease, acked: [], exceptions: [retry(0, world.clock.now())] })
    const leases = await world.leaseDue(true)
    await world.turn((turn) => world.settling.lose(turn, leases))
    const [letter] = await world.deadLetters.page(world.database, world.key, { limit: 10 })
    assert.deepEqual([letter?.reason, letter?.attempts, letter?.crashes], ['crashed', 2, 1])
    assert.deepEqual(
      letter?.failures.map(({ code }) => code),
      [undefined, 'POSTHORN_CRASHED_REPEATEDLY'],
    )
    assert.deepEqual(letter?.event, eventAt(0, 0))
  })

  test('keys of any characters keep their identity', async (context) => {
    const world = await openWorld(context, { ordered: true })
    const lease = await world.leaseFresh(0, 0, 2)
    const keys = [ODD_KEY, 'k\\u0000']
    const exceptions = keys.map((key, offset) => ({ offset, kind: 'park', until: 'freed', key }) as const)
    await settle(world, { lease, acked: [], exceptions, freed: [ODD_KEY] })
    const chains = await world.turn((turn) => world.chains.ofPartition(turn, 0))
    assert.deepEqual(new Set(chains.map(({ key }) => key)), new Set(keys))
    const due = await world.turn((turn) => world.setAside.due(turn, 10, [0]))
    assert.deepEqual(
      due.map(({ key }) => key),
      [ODD_KEY],
    )
  })

  test('steps are kept for the source that holds the message or has just failed it, and for nobody else', async (context) => {
    const world = await openWorld(context)
    const lease = await world.leaseFresh(0, 0, 2)
    const record = (offset: number, source = SOURCE) =>
      world.turn((turn) => world.steps.record(turn, source, lease, offset, 'name\u0000', '{"value":1}'))
    await record(0)
    await settle(world, { lease, acked: [], exceptions: [retry(0, world.clock.now())] })
    await record(0)
    const [again] = await world.leaseDue()
    await assert.rejects(record(0), { code: 'POSTHORN_LEASE_LOST' })
    await assert.rejects(record(1, 'another/1'), { code: 'POSTHORN_LEASE_LOST' })
    const results = await world.turn((turn) => world.steps.of(turn, SOURCE, again!.id, 0))
    assert.deepEqual([...results], [['name\u0000', '{"value":1}']])
    await settle(world, { lease: again!.id, acked: [0, 1], exceptions: [], stepped: [0] })
    assert.deepEqual(await world.query('SELECT FROM @.steps'), [])
  })

  test('the search for what is due begins where there may be something, and says what comes next', async (context) => {
    const world = await openWorld(context)
    const lease = await world.leaseFresh(0, 0, 3)
    const nowMs = world.clock.now()
    const exceptions = [retry(0, nowMs), retry(1, nowMs + 500), retry(2, nowMs + 2_000)]
    await settle(world, { lease, acked: [], exceptions })
    assert.deepEqual(await dueOffsets(world), [0])
    assert.equal(await world.turn((turn) => world.setAside.nextDueMs(turn)), nowMs + 500)
    const leases = await world.leaseDue()
    assert.deepEqual(await dueOffsets(world), [])
    assert.equal((await world.state()).dueAtMs, nowMs + 500)
    await dueOffsets(world)
    assert.deepEqual(world.statements, [])
    await world.turn((turn) => world.settling.release(turn, leases))
    assert.deepEqual(await dueOffsets(world), [0])
  })
})
