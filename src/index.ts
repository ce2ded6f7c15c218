/** The public API. Everything that a program needs is exported here; tests find more in `posthorn/testing`. */
export type { DeadLetterPage, PeekRequest, RedriveRequest, TopicReference } from './api/admin.ts'
export { Admin } from './api/admin.ts'
export { type ConnectOptions, connect } from './api/connect.ts'
export type {
  BatchHandler,
  DeliveredEvent,
  Handler,
  PostgresTransaction,
  TransactionalContext,
  TransactionalHandler,
} from './api/event.ts'
export type { InFlightOptions, OrderedOptions, RateLimitOptions } from './api/flow-options.ts'
export { Post } from './api/post.ts'
export { type AtomicOptions, message } from './api/publication.ts'
export type {
  BatchOptions,
  BatchSubscribeOptions,
  From,
  SubscribeOptions,
  TransactionalSubscribeOptions,
} from './api/subscribe-options.ts'
export { Subscription } from './api/subscription.ts'
export type { Definition, QueueDefinition, RetentionOptions, TopicDefinition, TopicOptions } from './api/topic.ts'
export { queue, topic } from './api/topic.ts'
export { isOutage } from './consumer/breaker/is-outage.ts'
export type { BreakerOptions, ProbeOptions } from './consumer/breaker/settings.ts'
export type { BatchContext, EventDetails } from './consumer/delivery/batch-delivery.ts'
export type { DeliveryContext } from './consumer/delivery/delivery.ts'
export type { StepContext, StepOptions, StepRetryOptions } from './consumer/delivery/step-options.ts'
export { Discard, RetryAfter } from './consumer/outcomes.ts'
export type { BackoffOptions, RetryOptions } from './consumer/retry-options.ts'
export type {
  BreakerReport,
  CancelOutcome,
  ConsumerState,
  DeadLetter,
  DeadReason,
  Failure,
  PartitionState,
  PeekedMessage,
  Priority,
  StoredEvent,
  StoredMessage,
  SubscriptionRef,
  SubscriptionState,
  TopicState,
} from './engine.ts'
export {
  type Clock,
  type Environment,
  type LogFields,
  type Logger,
  type Random,
  seededRandom,
  silentLogger,
  stderrLogger,
  systemClock,
  systemEnvironment,
  systemRandom,
  type Timer,
  type TimerOptions,
} from './environment/index.ts'
export { type ErrorCode, errorKinds, PosthornError } from './errors.ts'
export type { Duration, DurationUnit } from './message/duration.ts'
export type { Serialized } from './message/serialized.ts'
export type { Publication } from './publisher/atomic.ts'
export type { BulkResult } from './publisher/bulk.ts'
export type { BulkOptions, MessageOptions, PublishOptions } from './publisher/publish-options.ts'
export type { Published } from './publisher/published.ts'
