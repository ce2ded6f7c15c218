import type { Supply } from '../fetching/supply.ts'
import type { Finisher } from '../settlement/finisher.ts'
import type { Overrun } from './overrun.ts'
import type { StepTools } from './steps.ts'

/** What single and batch handlers work with alike. */
export interface WorkTools extends StepTools {
  readonly supply: Supply
  readonly finisher: Finisher
  readonly overrun: Overrun
  /** Something left the buffer. */
  onStarted(): void
  /** Something may have become startable that was not before. */
  onStartable(): void
}
