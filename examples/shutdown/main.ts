import { connect, queue } from 'posthorn'

const jobs = queue<{ readonly name: string }>('jobs')

/** Stands in for the address of a service: it answers with its name. */
const addressOf = (name: string) => `data:text/plain,${name}`

// #region connect
const post = await connect('sqlite:data/jobs.db', { closeOnSignals: true, drainTimeout: '20s' })
// #endregion

// #region handler
post.subscribe(
  jobs,
  async (event, { signal }) => {
    const response = await fetch(addressOf(event.data.name), { signal })
    console.log(await response.text())
  },
  { timeout: '10s' },
)
// #endregion

await post.publish(jobs, { name: 'done' })
