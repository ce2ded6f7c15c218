import { seededRandom, silentLogger } from '../../src/environment/index.ts'
import { KnownTopics } from '../../src/publisher/known-topics.ts'
import { Publisher, type PublisherSettings } from '../../src/publisher/publisher.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { FakeEngine } from './fake-engine.ts'

export const START_MS = Date.UTC(2026, 4, 1, 12)

/** A publisher on a fake engine, with a clock that stands still. */
export function setUp(
  settings: Partial<PublisherSettings> = {},
  options: { automatic?: boolean; transactionalAppend?: boolean } = {},
) {
  const clock = new VirtualClock(START_MS)
  const fake = new FakeEngine(options)
  const environment = { clock, random: seededRandom(1), logger: silentLogger }
  const topics = new KnownTopics(fake.engine)
  const publisher = new Publisher(fake.engine, environment, topics, {
    source: 'test',
    maxMessageBytes: 1024 ** 2,
    maxBufferedBytes: 64 * 1024 ** 2,
    ...settings,
  })
  return { publisher, topics, fake, clock }
}
