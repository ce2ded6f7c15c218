import { type Consumer, startConsumer } from '../consumer/consumer.ts'
import type { EventLoopWatch } from '../consumer/event-loop-watch.ts'
import { Outage } from '../consumer/outage.ts'
import type { ConsumerSettings, Handle, HandleBatch, Handlers } from '../consumer/settings.ts'
import type { Engine } from '../engine.ts'
import { type Environment, pause } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import type { KnownTopics } from '../publisher/known-topics.ts'
import type { Publishable } from '../publisher/publishable.ts'
import { eventCheck } from './event-check.ts'
import type { HandlerScope } from './handler-scope.ts'
import type { SubscriptionSettings } from './subscribe-options.ts'

/** What a connection lends to its subscriptions. */
export interface ConsumingParts {
  readonly engine: Engine
  readonly environment: Environment
  readonly topics: KnownTopics
  readonly eventLoopWatch: EventLoopWatch
  readonly scope: HandlerScope
  readonly drainMs: number
}

export interface Subscribing {
  readonly definition: Publishable
  readonly name: string
  readonly handler: (...parameters: never[]) => unknown
  readonly settings: SubscriptionSettings
}

/** Throws POSTHORN_UNSUPPORTED for settings that the engine has no means for. */
export function checkSupport(engine: Engine, settings: SubscriptionSettings): void {
  if (!settings.transactional || engine.capabilities.transactionalHandlers) return
  const feature = 'handlers within a transaction of the store (transactional)'
  throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: engine.name, feature })
}

/**
 * Makes the topic and the subscription exist, and resolves once the consumer runs. While the store is away it tries
 * again, until `closing` aborts.
 */
export async function openConsumer(
  parts: ConsumingParts,
  subscribing: Subscribing,
  closing: AbortSignal,
): Promise<Consumer> {
  const { clock, logger } = parts.environment
  const fields = { topic: subscribing.definition.name, subscription: subscribing.name }
  const outage = new Outage(logger, 'Opening a subscription', fields)
  for (;;) {
    try {
      const consumer = await openOnce(parts, subscribing)
      outage.ended()
      return consumer
    } catch (error) {
      if (!(error instanceof PosthornError && error.retryable) || closing.aborted) throw error
      await pause(clock, outage.failed(error), closing)
      if (closing.aborted) throw error
    }
  }
}

async function openOnce(parts: ConsumingParts, subscribing: Subscribing): Promise<Consumer> {
  const { engine, environment, topics, eventLoopWatch } = parts
  const { definition, name, settings } = subscribing
  const { maxCrashes, ordered, maxParked, start } = settings
  await topics.ensure(definition)
  await engine.ensureSubscription({
    topic: definition.name,
    subscription: name,
    maxCrashes,
    ordered: ordered !== false,
    maxParked,
    ...(start !== undefined && { start }),
  })
  const consumerSettings = consumerSettingsFor(subscribing, parts.drainMs)
  const handlers = handlersFor(subscribing, parts.scope)
  const consumer = startConsumer(engine, environment, consumerSettings, handlers, eventLoopWatch)
  await consumer.ready
  return consumer
}

function consumerSettingsFor({ definition, name, settings }: Subscribing, drainMs: number): ConsumerSettings {
  const { concurrency, timeoutMs, retry, batch, ordered, limits, breaker, transactional } = settings
  return {
    topic: definition.name,
    subscription: name,
    concurrency,
    timeoutMs,
    retry,
    drainMs,
    ordered,
    limits,
    transactional,
    ...(batch !== undefined && { batch }),
    ...(breaker !== undefined && { breaker }),
  }
}

function handlersFor({ definition, handler, settings }: Subscribing, scope: HandlerScope): Handlers {
  const checkEvent = eventCheck(definition)
  if (settings.batch !== undefined) return { handleBatch: handler as HandleBatch, checkEvent }
  const handle = handler as Handle
  if (!settings.transactional) return { handle, checkEvent }
  return { handle: (event, context) => scope.runTransaction(() => handle(event, context)), checkEvent }
}
