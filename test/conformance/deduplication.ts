/** Guarantee 3: an id given by the publisher is stored once within the topic's window. */
import assert from 'node:assert/strict'
import { dataOf, newGroup, newMessage } from './messages.ts'
import type { Guarantee } from './suite.ts'

const WINDOW_MS = 10_000

export const deduplication: Guarantee = (test) => {
  test('the second message of an id is a duplicate and is not stored', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    assert.equal((await process.publish(['first'], { id: 'order-1' }))[0]?.duplicate, false)
    assert.deepEqual(await process.publish(['second'], { id: 'order-1' }), [{ duplicate: true }])
    assert.deepEqual(dataOf(await source.pullAll()), ['first'])
  })

  test('within one append, and one group, as well', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const make = (data: string) => newMessage(data, world.clock.now(), { id: 'order-1' })
    const outcomes = await process.engine.append([newGroup([make('first'), make('second')]), newGroup([make('third')])])
    const receipts = outcomes.flatMap((outcome) => ('receipts' in outcome ? outcome.receipts : []))
    assert.deepEqual(
      receipts.map(({ duplicate }) => duplicate),
      [false, true, true],
    )
    assert.deepEqual(dataOf(await source.pullAll()), ['first'])
  })

  test('two processes that race with one id store it once', async (world) => {
    const processes = [await world.process(), await world.process()]
    await processes[0]!.topic()
    const racing = Array.from({ length: 20 }, (_, turn) => processes[turn % 2]!.publish([turn], { id: 'order-1' }))
    const receipts = (await Promise.all(racing)).flat()
    assert.equal(receipts.filter(({ duplicate }) => !duplicate).length, 1)
    assert.equal((await processes[0]!.topicState()).messages, 1)
  })

  test('an id is forgotten at the end of the window, and a duplicate does not prolong it', async (world) => {
    const process = await world.process()
    await process.topic({ deduplicationWindowMs: WINDOW_MS })
    await process.publish(['first'], { id: 'order-1' })
    await world.advance(WINDOW_MS - 1)
    assert.equal((await process.publish(['second'], { id: 'order-1' }))[0]?.duplicate, true)
    await world.advance(1)
    assert.equal((await process.publish(['third'], { id: 'order-1' }))[0]?.duplicate, false)
    assert.equal((await process.publish(['fourth'], { id: 'order-1' }))[0]?.duplicate, true)
  })

  test('ids outlive their messages', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    await process.publish(['first'], { id: 'order-1' })
    await source.drain()
    assert.equal((await process.topicState()).messages, 0)
    assert.deepEqual(await process.publish(['second'], { id: 'order-1' }), [{ duplicate: true }])
  })

  test('topics do not share ids', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'one' })
    await process.topic({ topic: 'other' })
    await process.publish(['a'], { topic: 'one', id: 'order-1' })
    assert.equal((await process.publish(['b'], { topic: 'other', id: 'order-1' }))[0]?.duplicate, false)
  })

  test('an id without the wish to deduplicate may come again', async (world) => {
    const process = await world.process()
    await process.topic()
    const { deduplicate: _, ...plain } = newMessage('a', world.clock.now(), { id: 'order-1' })
    await process.engine.append([newGroup([plain]), newGroup([plain])])
    assert.equal((await process.topicState()).messages, 2)
  })

  test('a delayed message holds its id too', async (world) => {
    const process = await world.process()
    await process.topic()
    const deliverAtMs = world.clock.now() + 1_000
    await process.publish(['later'], { id: 'order-1', deliverAtMs })
    assert.deepEqual(await process.publish(['now'], { id: 'order-1' }), [{ duplicate: true }])
  })

  test('a refused group does not use up its ids', async (world) => {
    const process = await world.process()
    await process.topic({ maxBacklog: 1 })
    const source = await process.subscribe()
    await process.publish(['fills it'])
    await assert.rejects(process.publish(['refused'], { id: 'order-1' }))
    await source.drain()
    assert.equal((await process.publish(['stored'], { id: 'order-1' }))[0]?.duplicate, false)
  })

  test('very long ids, and ids that differ in one character or in case, are told apart', async (world) => {
    const process = await world.process()
    await process.topic()
    const long = 'x'.repeat(20_000)
    for (const id of [long, `${long}y`, 'id', 'ID', 'id ', 'id\u0000', 'e\u0301', '\u00e9']) {
      assert.equal((await process.publish(['a'], { id }))[0]?.duplicate, false)
      assert.equal((await process.publish(['b'], { id }))[0]?.duplicate, true)
    }
  })
}
