/**
 * Guarantee 4, who gets what: a partition of an ordered subscription is one source's at a time, and its messages come
 * in offset order, also those that came back.
 */
import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'
import { dataOf, keyIn, numbersTo, offsetsOf } from './messages.ts'
import { afterCrash, SECOND_CHANCE, SUSPECTS_AT_ONCE } from './order-situations.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

// Enough to meet every turn that an engine may take in favour of new messages.
const ROUNDS = 12

export const order: Guarantee = (test) => {
  test('a partition belongs to one source: others get nothing of it, not even while the owner holds nothing', async (world) => {
    const { source, other } = await ownerAndOther(world, ['a', 'b', 'c'])
    const first = await source.pullOne()
    assert.deepEqual(await other.pullNow(), [])
    await source.ack([first])
    assert.deepEqual(await other.pullNow(), [])
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  test('an unordered subscription has no owners', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    const [one, other] = [await process.subscribe(), await process.source()]
    const grants = [await one.pullOne(), await other.pullOne()]
    assert.deepEqual(dataOf(grants), ['a', 'b'])
    for (const grant of grants) assert.equal(grant.takeover, undefined)
  })

  test('when the owner closes, the next one takes over at once: what came back first', async (world) => {
    const { source, other } = await ownerAndOther(world, ['a', 'b', 'c', 'd', 'e'])
    const [before] = await source.pull({ messagesMax: 2 })
    const after = await source.pull({ messagesMax: 2 })
    await source.ack(after)
    const waiting = other.pull()
    await source.close()
    const grants = [...(await waiting), ...(await other.pullAll())]
    assert.deepEqual(dataOf(grants), ['a', 'b', 'e'])
    assert.partialDeepStrictEqual(grants[0], { attempt: 1, crashes: 0, isolated: false, setAside: false })
    assert.deepEqual(await source.ack([before!]), [before!.lease])
  })

  test('when the owner dies, the next one takes over once its session has run out, and not before', async (world) => {
    const doomed = await world.process()
    await doomed.topic()
    await doomed.publish(['a', 'b', 'c'])
    const source = await doomed.subscribe({ ordered: true, maxCrashes: SECOND_CHANCE })
    await source.pull({ messagesMax: 2 })
    const heir = await (await world.process()).source()
    await doomed.crash()
    assert.deepEqual(await heir.pullNow(), [])
    await world.outliveLeases()
    const grants = await heir.pullAll()
    assert.deepEqual(dataOf(grants), ['a', 'b', 'c'])
    assert.partialDeepStrictEqual(grants[0], { attempt: 1, crashes: 1, isolated: false })
  })

  test('the first grant of a partition says that it was taken over, and no other does', async (world) => {
    const process = await world.process()
    const source = await shared(process, 2)
    await publishEverywhere(process, 2, ['a', 'b'])
    const firsts: Grant[] = []
    for (let grants = await source.pullNow(1); grants.length > 0; grants = await source.pullNow(1)) {
      if (grants[0]!.takeover !== undefined) firsts.push(...grants)
      await source.ack(grants)
    }
    assert.deepEqual(
      firsts.map(({ takeover }) => takeover),
      [[], []],
    )
    assert.deepEqual(partitionsOf(firsts), [0, 1])
    assert.deepEqual(dataOf(firsts), ['a', 'a'])
  })

  test('a partition that somebody else had in between is taken over anew', async (world) => {
    const process = await world.process()
    const source = await shared(process, 2)
    await publishEverywhere(process, 2, ['a'])
    await source.drain()
    const other = await (await world.process()).source()
    await publishEverywhere(process, 2, ['b', 'c'])
    const waiting = other.pull()
    await process.roundTrip()
    const grants = await waiting
    const { partition } = grants[0]!
    await other.retryWithFollowers(
      [...grants, ...(await other.pullAll())],
      world.clock.now() + 60_000,
      keyIn(partition, 2),
    )
    await other.close()
    await publishEverywhere(process, 2, ['d'])
    const own = (await source.pullAll()).find((grant) => grant.partition === partition)
    assert.deepEqual(
      own?.takeover?.map(({ key }) => key),
      [keyIn(partition, 2)],
    )
  })

  test('what is left over when partitions are shared out goes to those who came first, in each lane', async (world) => {
    const process = await world.process()
    const sources = [await shared(process, 3), await (await world.process()).source()]
    const owners = new Map<number, TestSource>()
    await world.eventually(async () => {
      owners.clear()
      for (const priority of ['normal', 'high'] as const) {
        for (let partition = 0; partition < 3; partition++) {
          await process.publish(['x'], { key: keyIn(partition, 3), ...(priority === 'high' && { priority }) })
        }
      }
      for (const source of sources) {
        const grants = await source.pullAll()
        for (const { partition } of grants) owners.set(partition, source)
        await source.ack(grants)
      }
      const count = (source: TestSource | undefined, lane: number) =>
        [...owners].filter(([partition, owner]) => owner === source && Math.floor(partition / 3) === lane).length
      assert.deepEqual([count(sources[0], 0), count(sources[0], 1)], [2, 2])
      assert.deepEqual([count(sources[1], 0), count(sources[1], 1)], [1, 1])
    })
  })

  test('a source that opens gets its share, once the owner holds no lease there', async (world) => {
    const process = await world.process()
    const first = await shared(process, 4)
    await publishEverywhere(process, 4, ['a'])
    const held = await first.pullAll()
    assert.deepEqual(partitionsOf(held), [0, 1, 2, 3])
    const second = await (await world.process()).source()
    await publishEverywhere(process, 4, ['b'])
    assert.deepEqual(await second.pullNow(), [])
    await first.ack(held)
    await assertShares(world, [first, second], 4)
  })

  test('an owner of more than its share is asked to release what it has not begun, and the newcomer gets that', async (world) => {
    const process = await world.process()
    const first = await shared(process, 2)
    await publishEverywhere(process, 2, ['a', 'b'])
    const held = await first.pullAll()
    assert.deepEqual(first.surplus, [])
    const second = await (await world.process()).source()
    await world.eventually(async () => assert.equal(first.surplus.length, 1))
    const leaves = ({ partition }: Grant) => first.surplus.includes(partition)
    const waiting = second.pull()
    await first.release(held.filter(leaves))
    const grants = [...(await waiting), ...(await second.pullAll())]
    assert.deepEqual(partitionsOf(grants), first.surplus)
    assert.deepEqual(dataOf(grants), ['a', 'b'])
    assert.partialDeepStrictEqual(grants[0], { attempt: 1, crashes: 0, takeover: [] })
    assert.deepEqual(await first.ack(held.filter((grant) => !leaves(grant))), [])
  })

  test('three sources have no more than their share each, also two of one process', async (world) => {
    const process = await world.process()
    const sources = [await shared(process, 4), await process.source(), await (await world.process()).source()]
    await publishEverywhere(process, 4, ['a'])
    await assertShares(world, sources, 4)
  })

  test('more sources than partitions: one owns, and the next takes over when it leaves', async (world) => {
    const { process, source, other } = await ownerAndOther(world, ['a'])
    await source.drain()
    const third = await process.source()
    await process.publish(['b'])
    const sources = [source, other, third]
    const owners = await ownersOf(world, sources, 1)
    assert.equal(owners.get(0)?.size, 1)
    const [owner] = owners.get(0)!
    await owner!.close()
    await process.publish(['c'])
    const rest = sources.filter((candidate) => candidate !== owner)
    assert.equal((await ownersOf(world, rest, 1)).get(0)?.size, 1)
  })

  test('a waiting pull wakes when another source gives up more than its share', async (world) => {
    const process = await world.process()
    const source = await shared(process, 2)
    await publishEverywhere(process, 2, ['a'])
    const held = await source.pullAll()
    const other = await (await world.process()).source()
    await publishEverywhere(process, 2, ['b'])
    const waiting = other.pull()
    await process.roundTrip()
    await source.ack(held)
    assert.equal((await waiting).length, 1)
  })

  test('two waiting pulls wake when each has a message in a partition of its own', async (world) => {
    const process = await world.process()
    const source = await shared(process, 2)
    await publishEverywhere(process, 2, ['a'])
    await source.drain()
    const other = await (await world.process()).source()
    const waiting = [source.pull(), other.pull()]
    await process.roundTrip()
    await publishEverywhere(process, 2, ['b'])
    assert.deepEqual(partitionsOf((await Promise.all(waiting)).flat()), [0, 1])
  })

  test('what is released comes again before anything behind it, every time', async (world) => {
    const process = await world.process()
    const source = await shared(process, 1)
    await process.publish(numbersTo(9))
    for (let round = 0; round < ROUNDS; round++) {
      const grants = await source.pull({ messagesMax: 2 })
      assert.deepEqual(dataOf(grants), [0, 1])
      await source.release(grants)
    }
    assert.deepEqual(dataOf(await source.pullAll()), numbersTo(9))
  })

  test('ranges that came back are granted in offset order, in whatever order they came', async (world) => {
    const process = await world.process()
    const source = await shared(process, 1)
    await process.publish(numbersTo(9))
    const pulls: (readonly Grant[])[] = []
    for (let pull = 0; pull < 4; pull++) pulls.push(await source.pull({ messagesMax: 2 }))
    for (const returned of [2, 0, 3]) await source.release(pulls[returned]!)
    await source.ack(pulls[1]!)
    assert.deepEqual(offsetsOf(await source.pullAll()), [0, 1, 4, 5, 6, 7, 8])
  })

  test('due messages that were set aside wait for those that came back', async (world) => {
    const process = await world.process()
    const source = await shared(process, 1)
    await process.publish(['failing', 'released', 'new'])
    const [failing, released] = [await source.pullOne(), await source.pullOne()]
    await source.retry([failing], world.clock.now(), 'k')
    await source.release([released])
    const data = dataOf(await source.pullAll())
    assert.equal(data[0], 'released')
    assert.deepEqual(data.toSorted(), ['failing', 'new', 'released'])
  })

  test('a suspect is granted before what lies behind it, one at a time', async (world) => {
    const process = await crashed(world, 1, ['a', 'b', 'c'])
    await process.publish(['d'])
    const source = await process.source()
    const seen: unknown[] = []
    for (const expected of ['a', 'b', 'c']) {
      const grants = await source.pullNow()
      assert.equal(dataOf(grants)[0], expected)
      assert.equal(grants.filter(({ isolated }) => isolated).length, 1)
      seen.push(...dataOf(grants))
      await source.ack(grants)
    }
    seen.push(...dataOf(await source.drain()))
    assert.deepEqual(seen, ['a', 'b', 'c', 'd'])
  })

  test('a suspect that cannot be granted now holds back its partition, and only that one', async (world) => {
    const process = await crashed(world, 2, ['suspect'])
    await publishEverywhere(process, 2, ['behind'])
    const source = await process.source()
    const grants = await source.pullAll()
    const [suspect] = grants.filter(({ isolated }) => isolated)
    assert.equal(dataOf(grants).filter((data) => data === 'suspect').length, 1)
    for (const { partition } of grants) assert.equal(partition, suspect?.partition)
    await source.ack(grants)
    const rest = await source.drain()
    const other = 1 - suspect!.partition
    const inOther = rest.filter(({ partition }) => partition === other)
    assert.deepEqual(dataOf(inOther), ['suspect', 'behind'])
  })

  test('what a lost session had comes back in order, as ranges, while it is not suspected', async (world) => {
    const process = await crashed(world, 1, ['a', 'b', 'c'], SECOND_CHANCE)
    await process.publish(['d'])
    const grants = await (await process.source()).pullAll()
    assert.deepEqual(dataOf(grants), ['a', 'b', 'c', 'd'])
    assert.deepEqual(
      grants.map(({ crashes, messages }) => [crashes, messages.length]),
      [
        [1, 3],
        [0, 1],
      ],
    )
  })

  test('made ordered later: a partition is taken only once nobody else holds a lease there', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(numbersTo(6))
    const [one, other] = [await process.subscribe(), await (await world.process()).source()]
    const held = [await one.pullOne(), await other.pullOne()]
    await process.subscription({ ordered: true })
    assert.deepEqual(dataOf([...(await one.pullNow(1)), ...(await other.pullNow(1))]), [])
    await one.ack([held[0]!])
    await other.ack([held[1]!])
    const [mine, theirs] = [await one.drain(), await other.drain()]
    assert.deepEqual(dataOf([...mine, ...theirs]), [2, 3, 4, 5])
    assert.ok(mine.length === 0 || theirs.length === 0)
  })

  test('made unordered later: everybody gets some', async (world) => {
    const { process, source, other } = await ownerAndOther(world, numbersTo(4))
    await source.ack([await source.pullOne()])
    assert.deepEqual(await other.pullNow(), [])
    await process.subscription({ ordered: false })
    const grants = [await other.pullOne(), await source.pullOne(), await other.pullOne()]
    assert.deepEqual(dataOf(grants), [1, 2, 3])
  })

  test('two sources of one process do not share a partition either', async (world) => {
    const process = await world.process()
    const [one, other] = [await shared(process, 1), await process.source()]
    await process.publish(['a', 'b'])
    const first = await one.pullOne()
    assert.deepEqual(await other.pullNow(), [])
    await one.close()
    assert.deepEqual(dataOf(await other.pullAll()), ['a', 'b'])
    assert.deepEqual(await one.ack([first]), [first.lease])
  })
}

/** A source that owns the one partition, and another one, in another process, that came later. */
async function ownerAndOther(
  world: World,
  data: readonly unknown[],
): Promise<{ process: TestProcess; source: TestSource; other: TestSource }> {
  const [process, otherProcess] = [await world.process(), await world.process()]
  const source = await shared(process, 1)
  await process.publish(['taken'])
  await source.drain()
  await process.publish(data)
  return { process, source, other: await otherProcess.source() }
}

async function shared(process: TestProcess, partitions: number): Promise<TestSource> {
  await process.topic({ partitions })
  return process.subscribe({ ordered: true })
}

async function publishEverywhere(process: TestProcess, partitions: number, data: readonly unknown[]): Promise<void> {
  for (let partition = 0; partition < partitions; partition++) {
    await process.publish(data, { key: keyIn(partition, partitions) })
  }
}

/** A process that comes after another one died with these messages, in every partition. */
async function crashed(
  world: World,
  partitions: number,
  data: readonly unknown[],
  maxCrashes: number = SUSPECTS_AT_ONCE,
): Promise<TestProcess> {
  const doomed = await world.process()
  await doomed.topic({ partitions })
  await publishEverywhere(doomed, partitions, data)
  const source = await doomed.subscribe({ ordered: true, maxCrashes })
  assert.equal(dataOf(await source.pullAll()).length, partitions * data.length)
  return afterCrash(doomed)
}

/** Lets the sources take what there is, until every partition has been granted to somebody. */
async function ownersOf(
  world: World,
  sources: readonly TestSource[],
  partitions: number,
): Promise<ReadonlyMap<number, ReadonlySet<TestSource>>> {
  const owners = new Map<number, Set<TestSource>>()
  await world.eventually(async () => {
    for (const source of sources) {
      for (const { partition } of await source.drain()) {
        owners.set(partition, (owners.get(partition) ?? new Set()).add(source))
      }
    }
    assert.equal(owners.size, partitions)
  })
  return owners
}

async function assertShares(world: World, sources: readonly TestSource[], partitions: number): Promise<void> {
  const owners = await ownersOf(world, sources, partitions)
  const all = [...owners.values()].flatMap((ofOne) => [...ofOne])
  assert.equal(all.length, partitions, 'a partition was granted to two sources')
  for (const source of sources) {
    const owned = all.filter((owner) => owner === source).length
    assert.ok(owned <= Math.ceil(partitions / sources.length), `a source has ${owned} of ${partitions} partitions`)
  }
}

function partitionsOf(grants: readonly Grant[]): readonly number[] {
  return [...new Set(grants.map(({ partition }) => partition))].toSorted()
}
