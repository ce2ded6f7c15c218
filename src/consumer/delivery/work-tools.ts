import type { Environment } from '../../environment/index.ts'
import type { GrantBuffer } from '../fetching/buffer.ts'
import type { ConsumerSettings } from '../settings.ts'
import type { Finisher } from '../settlement/finisher.ts'
import type { Overrun } from './overrun.ts'

/** What single and batch handlers work with alike. */
export interface WorkTools {
  readonly settings: ConsumerSettings
  readonly environment: Environment
  readonly buffer: GrantBuffer
  readonly finisher: Finisher
  readonly overrun: Overrun
  /** Something left the buffer. */
  onStarted(): void
  /** Something may have become startable that was not before. */
  onStartable(): void
}
