/** A worker whose handler ends the process at some messages, as careless code does. */
import { connect, topic } from '../../../src/index.ts'

const jobs = topic<{ name: string }>('jobs')
const post = await connect(process.argv[2]!, { lease: '300ms' })
post.subscribe(
  jobs,
  'worker',
  (event) => {
    if (event.data.name === 'deadly') process.exit(0)
  },
  { maxCrashes: 2 },
)
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))
